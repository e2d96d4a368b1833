use std::ops::ControlFlow;
use std::sync::Arc;

use super::*;
use crate::storage::device::double::DoubleDevice;
use crate::storage::device::{LogDevice, LogFile};
use crate::storage::history::{BlockBuilder, Header};

const PREAMBLE: Preamble =
    Preamble { group: GroupId(4), generation: 2, at: LogId::new(3, 99), revision: 7 };

fn header(main: i64, value: &[u8]) -> Header {
    Header {
        revision: Revision::new(main, 0),
        tombstone: false,
        key: Bytes::from_static(b"key"),
        create_revision: 2,
        version: main - 1,
        lease: 0,
        value_len: value.len(),
        value_hash: crate::storage::format::xxh3(value),
    }
}

fn small(device: &DoubleDevice) -> (Arc<dyn LogFile>, Written) {
    let file = device.create("b").unwrap();
    let mut pace = |_| ControlFlow::Continue(());
    let mut writer = BaseWriter::begin(Arc::clone(&file), &PREAMBLE, &mut pace).unwrap();
    let record = (Space::Lease, Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    writer.records(&[record]).unwrap();
    let headers = [header(5, b"one"), header(7, b"two")];
    let mut block = BlockBuilder::begin(&headers[0], b"one");
    block.push(&headers[1], b"two");
    let hashes = headers.iter().map(Header::content_hash);
    writer.block(block.first(), block.headers(), block.values(), hashes).unwrap();
    (file, writer.finish().unwrap())
}

fn read(file: Arc<dyn LogFile>, len: u64) -> Result<Written, BaseError> {
    let mut reader = BaseReader::begin(file, len)?;
    assert_eq!(reader.preamble(), PREAMBLE);
    while let Some(part) = reader.next()? {
        if let Part::Block { first, headers, values } = part {
            let headers = check_block(first, &headers, &values)?;
            reader.count(&headers);
        }
    }
    reader.finish()
}

fn bytes_of(file: &dyn LogFile) -> Vec<u8> {
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn golden_bytes_of_a_base() {
    let device = DoubleDevice::default();
    let (file, written) = small(&device);
    let bytes = bytes_of(&*file);
    assert_eq!(written.len, bytes.len() as u64);
    assert_eq!(read(file, written.len).unwrap(), written);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("../../../tests/testdata/store/v1/base.hex").trim());
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let device = DoubleDevice::default();
    let (file, written) = small(&device);
    let good = bytes_of(&*file);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let file = device.create("damaged").unwrap();
        file.write_at(0, &bad).unwrap();
        assert!(read(file, written.len).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        let file = device.create("cut").unwrap();
        file.write_at(0, &good[..len]).unwrap();
        assert!(read(Arc::clone(&file), written.len).is_err(), "cut at {len}");
        assert!(read(file, len as u64).is_err(), "cut at {len}, length unknown");
    }
}

use super::*;

fn record(main: i64, sub: i64, key: &str, value: &str, lease: i64) -> RevisionRecord {
    RevisionRecord {
        revision: Revision::new(main, sub),
        tombstone: false,
        kv: Arc::new(KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            create_revision: 2,
            mod_revision: main,
            version: main - 1,
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease,
        }),
        prev: None,
    }
}

fn tombstone(main: i64, sub: i64, key: &str) -> RevisionRecord {
    RevisionRecord {
        revision: Revision::new(main, sub),
        tombstone: true,
        kv: Arc::new(KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            mod_revision: main,
            ..KeyValue::default()
        }),
        prev: None,
    }
}

fn block_of(records: &[RevisionRecord]) -> BlockBuilder {
    let mut block: Option<BlockBuilder> = None;
    for record in records {
        let header = Header::of(record);
        match &mut block {
            Some(block) => block.push(&header, &record.kv.value),
            None => block = Some(BlockBuilder::begin(&header, &record.kv.value)),
        }
    }
    block.unwrap()
}

fn decoded(block: &BlockBuilder) -> Block {
    let headers = Bytes::copy_from_slice(block.headers());
    let decoded = Block::decode_headers(block.first(), &headers).unwrap();
    Block::join(decoded, Bytes::copy_from_slice(block.values()), headers.len()).unwrap()
}

#[test]
fn a_block_gives_back_what_was_packed() {
    let records = [
        record(5, 0, "a", "one", 0),
        record(6, 0, "b", "", -7),
        tombstone(6, 1, "a"),
        record(9, 3, "c", "three", 8),
    ];
    let block = decoded(&block_of(&records));
    assert_eq!(block.first(), Revision::new(5, 0));
    for (position, record) in records.iter().enumerate() {
        assert_eq!(block.record(position).unwrap(), *record);
        assert_eq!(block.position(record.revision), Some(position));
        assert_eq!(block.headers()[position].content_hash(), Header::of(record).content_hash());
    }
    assert_eq!(block.position(Revision::new(7, 0)), None);
}

#[test]
fn golden_bytes_of_a_block() {
    let block =
        block_of(&[record(5, 0, "a", "one", 0), record(6, 0, "b", "", -7), tombstone(6, 1, "a")]);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(
        hex(block.headers()),
        "010000000161020403a0e11f32a7ab1f91010002016202\
         05f9ffffffffffffff00c294d3380580062d0001010161"
    );
    assert_eq!(hex(block.values()), "6f6e65");
    let header = Header::of(&record(5, 0, "a", "one", 0));
    assert_eq!(format!("{:016x}", header.content_hash()), "fe38d7f2a718cc30");
    assert_eq!(format!("{:016x}", record_hash(0x11, b"k", b"v")), "7bcf121e4132e5b3");
}

#[test]
fn each_field_changes_the_content_hash() {
    let base = Header::of(&record(5, 1, "key", "value", 4));
    let mut others = vec![base.clone(); 7];
    others[0].revision.main = 6;
    others[1].revision.sub = 2;
    others[2].key = Bytes::from_static(b"kez");
    others[3].create_revision += 1;
    others[4].version += 1;
    others[5].lease = 5;
    others[6].value_hash ^= 1;
    for other in others {
        assert_ne!(other.content_hash(), base.content_hash(), "{other:?}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_changes_the_sum_or_fails_the_value() {
    let records =
        [record(5, 0, "a", "one", 3), tombstone(6, 1, "a"), record(9, 3, "c", "three", 0)];
    let block = block_of(&records);
    let sum =
        |headers: &[Header]| headers.iter().fold(0u64, |sum, h| sum.wrapping_add(h.content_hash()));
    let good = sum(decoded(&block).headers());
    for at in 0..block.headers().len() * 8 {
        let mut bytes = block.headers().to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(headers) = Block::decode_headers(block.first(), &Bytes::from(bytes)) {
            assert_ne!(sum(&headers), good, "bit {at}");
        }
    }
    for at in 0..block.values().len() {
        let mut values = block.values().to_vec();
        values[at] ^= 4;
        let headers = decoded(&block).headers;
        let damaged = Block::join(headers, Bytes::from(values), 0).unwrap();
        assert!((0..3).any(|position| damaged.key_value(position).is_err()), "byte {at}");
    }
}

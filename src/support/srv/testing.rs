//! A name server for tests: service records over UDP, on a port of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfigGroup, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Names;

/// A record: name, priority, weight, port, target; names with their dots.
pub(crate) type Row = (&'static str, u16, u16, u16, &'static str);

/// The server, until it is dropped.
pub(crate) struct Zone {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Zone {
    /// Answers questions for service records with those of `rows`.
    pub(crate) async fn serve(rows: &[Row]) -> Zone {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let rows: Arc<[Row]> = rows.into();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&Message::from_vec(&buffer[..length]).unwrap(), &rows);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Zone { address, task }
    }

    /// Who asks it.
    pub(crate) fn names(&self) -> Names {
        let (ip, port) = (self.address.ip(), self.address.port());
        let servers = NameServerConfigGroup::from_ips_clear(&[ip], port, true);
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let provider = TokioConnectionProvider::default();
        Names(TokioResolver::builder_with_config(config, provider).build())
    }
}

fn answer(question: &Message, rows: &[Row]) -> Message {
    let mut answer = Message::new();
    answer.set_id(question.id()).set_message_type(MessageType::Response);
    let query = &question.queries()[0];
    answer.add_query(query.clone());
    let asked = query.name().to_utf8();
    let mut known = false;
    for (name, priority, weight, port, target) in rows {
        if asked == *name && query.query_type() == RecordType::SRV {
            let target = Name::from_utf8(target).unwrap();
            let data = RData::SRV(SRV::new(*priority, *weight, *port, target));
            answer.add_answer(Record::from_rdata(query.name().clone(), 1, data));
            known = true;
        }
    }
    if !known {
        answer.set_response_code(ResponseCode::NXDomain);
    }
    answer
}

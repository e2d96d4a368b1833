//! Certificates that are made anew: whose, by whom, and who is refused.

use super::*;
use crate::fleet::api::internal::{RenewAsk, TrustAsk, VERSION};
use crate::fleet::pki::{Bundle, CertificateName, Folder, Organisation, Pending, Wanted};
use crate::support::tls::read_certificates;

impl Rig {
    fn bundle(&self) -> Bundle {
        Folder::open(&self.dir.path().join("pki")).unwrap().read().unwrap()
    }

    async fn id(&self, name: &str) -> String {
        let nodes = self.status().await.membership.unwrap().nodes;
        nodes.into_iter().find(|node| node.name == name).unwrap().id
    }
}

fn csr(name: &str, hosts: &[String]) -> String {
    let organisation = Organisation::ControlPlane;
    let wanted = Wanted::new(CertificateName::Peer, organisation, name, &[], hosts);
    Pending::new(&wanted).unwrap().request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_a_worker_gets_what_it_was_admitted_for_and_nobody_gets_anothers() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    worker.join(&first.worker_token("w1").await).await.unwrap();
    let (own, replica) = (first.id("w1").await, first.id("n1").await);
    let renew = |id: &str, csr: String| RenewAsk {
        version: VERSION,
        id: id.to_owned(),
        csr,
        seconds: None,
    };

    // It may wish for what it likes.
    let wish = csr("w1", &["somebody.else".to_owned()]);
    let signed = first.node().renew("w1", renew(&own, wish)).await.unwrap().certificate;
    let facts = &read_certificates(signed.as_bytes()).unwrap()[0];
    assert_eq!(
        (facts.common_name.as_str(), &facts.organisations[..]),
        ("w1", &["quorate:worker".to_owned()][..])
    );
    assert!(!facts.hosts.contains(&"somebody.else".to_owned()), "{:?}", facts.hosts);

    for (who, id, name) in [("w2", &own, "w2"), ("n1", &replica, "n1"), ("w1", &replica, "w1")] {
        let why = first.node().renew(who, renew(id, csr(name, &[]))).await.unwrap_err();
        assert!(matches!(why, FleetError::Forbidden(_)), "{who} as {id}: {why:?}");
    }
    let other = first.node().renew("w1", renew(&own, csr("root", &[]))).await.unwrap_err();
    assert!(matches!(other, FleetError::Invalid(_)), "{other:?}");

    let report = worker.bundle().report().unwrap();
    let ask = || TrustAsk { version: VERSION, id: own.clone(), report: report.clone() };
    let told = first.node().hear("w1", ask()).await.unwrap();
    assert_eq!(told.ca, first.bundle().authorities);
    assert!(told.can_sign && told.apis == [first.settings.api_address("")], "{told:?}");

    first.node().remove(removal("w1", false)).await.unwrap();
    let gone = first.node().renew("w1", renew(&own, csr("w1", &[]))).await.unwrap_err();
    assert!(gone.to_string().contains("was removed"), "{gone}");
    let gone = first.node().hear("w1", ask()).await.unwrap_err();
    assert!(matches!(gone, FleetError::Forbidden(_)), "{gone:?}");
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}

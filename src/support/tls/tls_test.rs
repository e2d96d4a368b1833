//! Both sides of a handshake over real sockets, with certificates made in the test.

use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{Authority, Folder, Made, Wanted, alone, wanted};
use super::*;
use crate::support::aside::Aside;
use crate::support::listen::Connection;
use crate::support::urls::parse_list;

/// Two folders, an authority, and what each side is set up with.
struct Pair {
    _dir: TempDir,
    authority: Authority,
    server_files: Folder,
    client_files: Folder,
    server: TlsSettings,
    client: TlsSettings,
}

impl Pair {
    fn new() -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("authority");
        let (server_files, client_files) =
            (Folder::new(dir.path(), "server"), Folder::new(dir.path(), "client"));
        let mut server = server_files.settings(&authority.sign(&wanted("server")), &authority.pem);
        server.client_cert_auth = true;
        let client = client_files.settings(&authority.sign(&wanted("client")), &authority.pem);
        Pair { _dir: dir, authority, server_files, client_files, server, client }
    }

    fn ends(&self, endpoint: Endpoint) -> Ends {
        Ends {
            acceptor: side(&self.server).acceptor(endpoint).unwrap(),
            connector: side(&self.client).connector(),
        }
    }

    /// Whether a client that shows `made` is let in.
    async fn try_client(&self, made: &Made) -> Result<Option<PeerIdentity>, String> {
        self.client_files.show(made);
        self.ends(Endpoint::Client).meet().await.0
    }
}

struct Ends {
    acceptor: Acceptor,
    connector: Connector,
}

fn side(settings: &TlsSettings) -> Side {
    let aside = Arc::new(Aside::start("tls").unwrap());
    Side::open(settings, Protocol::default(), Some(aside)).unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

type Told = Result<Option<PeerIdentity>, String>;

impl Ends {
    /// Both shake hands; who is there or why not, and what the client hears of it.
    async fn meet(&self) -> (Told, Result<(), String>) {
        let (dialled, accepted) = sockets().await;
        let serve = async {
            let wire = FirstByte::read(Connection::Tcp(accepted)).await.unwrap().unwrap();
            let mut accepted =
                self.acceptor.accept(wire).await.map_err(|why| why.error().to_owned())?;
            accepted.stream.write_all(b"x").await.unwrap();
            accepted.stream.shutdown().await.unwrap();
            Ok(accepted.identity)
        };
        let dial = async {
            let stream = self.connector.connect("127.0.0.1", dialled).await;
            let mut stream = stream.map_err(|why| why.to_string())?;
            let mut heard = Vec::new();
            let read = stream.read_to_end(&mut heard).await;
            read.map(drop).map_err(|why| tls_cause(&why).unwrap_or_else(|| why.to_string()))
        };
        tokio::join!(serve, dial)
    }
}

#[tokio::test]
async fn who_shows_a_good_certificate_is_known_by_its_common_name() {
    let pair = Pair::new();
    let (told, heard) = pair.ends(Endpoint::Client).meet().await;
    assert_eq!(told.unwrap().unwrap().common_name.as_deref(), Some("client"));
    assert_eq!(heard, Ok(()));
    // A certificate is demanded by the authorities alone; its name is no user then.
    let mut pair = pair;
    pair.server.client_cert_auth = false;
    let nameless = PeerIdentity::default();
    assert_eq!(pair.ends(Endpoint::Client).meet().await.0, Ok(Some(nameless)));
    // Nobody has to say who it is where nobody is asked.
    pair.server.trusted_ca_file = String::new();
    assert_eq!(pair.ends(Endpoint::Client).meet().await.0, Ok(None));
}

#[tokio::test]
async fn each_bad_certificate_is_refused_in_gos_words() {
    let mut pair = Pair::new();
    let list = pair.authority.revoke(&[66]);
    pair.server.crl_file = pair.server_files.put("crl", list);
    pair.server.allowed_common_names = vec!["client".to_owned(), "other".to_owned()];
    let good = wanted("client");
    assert!(pair.try_client(&pair.authority.sign(&good)).await.is_ok());

    let old = pair.authority.sign(&Wanted { hours: (-48, -24), ..good.clone() });
    let why = pair.try_client(&old).await.unwrap_err();
    let want = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time";
    assert!(why.starts_with(want) && why.contains(" is after "), "{why}");
    let young = pair.authority.sign(&Wanted { hours: (24, 48), ..good.clone() });
    let why = pair.try_client(&young).await.unwrap_err();
    assert!(why.starts_with(want) && why.contains(" is before "), "{why}");

    let stranger = Authority::new("authority").sign(&good);
    assert_eq!(
        pair.try_client(&stranger).await.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    let for_servers = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let wrong_use = pair.authority.sign(&Wanted { usages: for_servers, ..good.clone() });
    assert_eq!(
        pair.try_client(&wrong_use).await.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage"
    );
    let revoked = pair.authority.sign(&Wanted { serial: 66, ..good.clone() });
    assert_eq!(
        pair.try_client(&revoked).await.unwrap_err(),
        "transport: certificate serial 42 revoked"
    );
    let nobody = pair.authority.sign(&wanted("nobody"));
    assert_eq!(
        pair.try_client(&nobody).await.unwrap_err(),
        "client certificate authentication failed"
    );
    let bare =
        TlsSettings { trusted_ca_file: pair.client.trusted_ca_file.clone(), ..Default::default() };
    pair.client = bare;
    assert_eq!(
        pair.ends(Endpoint::Client).meet().await.0.unwrap_err(),
        "tls: client didn't provide a certificate"
    );
}

#[tokio::test]
async fn who_is_refused_hears_it_in_gos_words() {
    let mut pair = Pair::new();
    pair.server.allowed_hostnames = vec!["m1".to_owned()];
    let (told, heard) = pair.ends(Endpoint::Client).meet().await;
    assert_eq!(told.unwrap_err(), "client certificate authentication failed");
    assert_eq!(heard.unwrap_err(), "remote error: tls: bad certificate");
    let named = Wanted { names: vec![SanType::DnsName("m1".try_into().unwrap())], ..wanted("x") };
    assert!(pair.try_client(&pair.authority.sign(&named)).await.is_ok());
}

#[tokio::test]
async fn who_is_dialled_must_be_the_one_that_was_meant() {
    let mut pair = Pair::new();
    let elsewhere = vec![SanType::DnsName("m1".try_into().unwrap())];
    let made = pair.authority.sign(&Wanted { names: elsewhere, ..wanted("server") });
    pair.server_files.show(&made);
    let (told, heard) = pair.ends(Endpoint::Client).meet().await;
    assert_eq!(
        heard.unwrap_err(),
        "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't \
         contain any IP SANs"
    );
    assert_eq!(told.unwrap_err(), "remote error: tls: bad certificate");
    // The rules for names bind both sides, as with etcd.
    pair.server_files.show(&pair.authority.sign(&wanted("server")));
    pair.client.allowed_common_names = vec!["m0".to_owned()];
    let (_, heard) = pair.ends(Endpoint::Client).meet().await;
    assert_eq!(heard.unwrap_err(), "client certificate authentication failed");
}

#[tokio::test]
async fn who_belongs_to_none_of_the_allowed_organisations_is_refused_on_both_ends() {
    let mut pair = Pair::new();
    let of = |name: &str, organisations: &[&str]| Wanted {
        organisations: organisations.iter().map(|own| (*own).to_owned()).collect(),
        ..wanted(name)
    };
    pair.server.allowed_organisations = vec!["members".to_owned()];
    for (organisations, is_let_in) in [
        (&["members"][..], true),
        (&["others", "members"], true),
        (&["others"], false),
        (&["members2"], false),
        (&[], false),
    ] {
        let told = pair.try_client(&pair.authority.sign(&of("client", organisations))).await;
        assert_eq!(told.is_ok(), is_let_in, "{organisations:?}: {told:?}");
    }
    // Names are asked for besides.
    pair.server.allowed_common_names = vec!["m0".to_owned()];
    let why = pair.try_client(&pair.authority.sign(&of("client", &["members"]))).await;
    assert_eq!(why.unwrap_err(), "client certificate authentication failed");

    pair.server.allowed_organisations = Vec::new();
    pair.server.allowed_common_names = Vec::new();
    pair.client.allowed_organisations = vec!["members".to_owned()];
    pair.server_files.show(&pair.authority.sign(&of("server", &["others"])));
    let (_, heard) = pair.ends(Endpoint::Client).meet().await;
    assert_eq!(heard.unwrap_err(), "client certificate authentication failed");
    pair.server_files.show(&pair.authority.sign(&of("server", &["members"])));
    assert!(pair.ends(Endpoint::Client).meet().await.0.is_ok());
}

#[tokio::test]
async fn who_speaks_for_others_is_a_user_whom_nobody_knows() {
    let mut pair = Pair::new();
    pair.server.nameless_organisations = vec!["proxies".to_owned()];
    let organisations = vec!["proxies".to_owned()];
    let proxy = pair.authority.sign(&Wanted { organisations, ..wanted("root") });
    let told = pair.try_client(&proxy).await.unwrap().unwrap();
    assert_eq!(told.common_name.as_deref(), Some(""));
    let plain = pair.authority.sign(&wanted("root"));
    let told = pair.try_client(&plain).await.unwrap().unwrap();
    assert_eq!(told.common_name.as_deref(), Some("root"));
}

#[tokio::test]
async fn a_peer_must_connect_from_an_address_that_its_certificate_names() {
    let mut pair = Pair::new();
    let elsewhere = vec![SanType::IpAddress("10.0.0.1".parse().unwrap())];
    let made = pair.authority.sign(&Wanted { names: elsewhere, ..wanted("m1") });
    pair.client_files.show(&made);
    assert_eq!(
        pair.ends(Endpoint::Peer).meet().await.0.unwrap_err(),
        "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"
    );
    assert!(pair.ends(Endpoint::Client).meet().await.0.is_ok());
    pair.server.skip_client_san_verification = true;
    assert!(pair.ends(Endpoint::Peer).meet().await.0.is_ok());
}

#[tokio::test]
async fn a_certificate_that_stands_among_the_authorities_is_trusted_itself() {
    let mut pair = Pair::new();
    let own = alone(&wanted("alone"));
    pair.server.trusted_ca_file = pair.server_files.put("ca", &own.cert);
    let told = pair.try_client(&own).await.unwrap();
    assert_eq!(told.unwrap().common_name.as_deref(), Some("alone"));
    let old = alone(&Wanted { hours: (-48, -24), ..wanted("alone") });
    pair.server.trusted_ca_file = pair.server_files.put("ca", &old.cert);
    let why = pair.try_client(&old).await.unwrap_err();
    assert!(why.contains("certificate has expired"), "{why}");
}

#[tokio::test]
async fn versions_that_do_not_meet_are_refused() {
    let pair = Pair::new();
    let only = |min, max| Protocol::new(min, max, &[]).unwrap();
    let newest = Side::open(&pair.server, only(Some(Version::Tls13), None), None).unwrap();
    let oldest = Side::open(&pair.client, only(None, Some(Version::Tls12)), None).unwrap();
    let acceptor = newest.acceptor(Endpoint::Client).unwrap();
    let ends = Ends { acceptor, connector: oldest.connector() };
    let (told, heard) = ends.meet().await;
    assert_eq!(told.unwrap_err(), "tls: client offered only unsupported versions");
    assert_eq!(heard.unwrap_err(), "remote error: tls: protocol version not supported");
    let acceptor = oldest.acceptor(Endpoint::Client);
    let both = Ends { acceptor: acceptor.unwrap(), connector: side(&pair.client).connector() };
    assert!(both.meet().await.0.is_ok());
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_without_an_answer() {
    let pair = Pair::new();
    let (mut dialled, accepted) = sockets().await;
    dialled.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let wire = FirstByte::read(Connection::Tcp(accepted)).await.unwrap().unwrap();
    let why = pair.ends(Endpoint::Client).acceptor.accept(wire).await.unwrap_err();
    assert_eq!(why.error(), "tls: first record does not look like a TLS handshake");
    let mut heard = Vec::new();
    // What was not read may come back as a reset.
    let _ = dialled.read_to_end(&mut heard).await;
    assert!(heard.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let pair = Pair::new();
    let (mut dialled, accepted) = sockets().await;
    dialled.write_all(&[22]).await.unwrap();
    let wire = FirstByte::read(Connection::Tcp(accepted)).await.unwrap().unwrap();
    let why = pair.ends(Endpoint::Client).acceptor.accept(wire).await.unwrap_err();
    assert!(why.error().ends_with(": i/o timeout"), "{}", why.error());
}

#[tokio::test]
async fn certificates_authorities_and_revocations_are_taken_up_without_a_restart() {
    let mut pair = Pair::new();
    pair.server.crl_file = pair.server_files.put("crl", pair.authority.revoke(&[]));
    let ends = pair.ends(Endpoint::Client);
    let who = async || {
        let (told, heard) = ends.meet().await;
        told.and_then(|told| heard.map(|()| told.unwrap().common_name.unwrap()))
    };
    assert_eq!(who().await.as_deref(), Ok("client"));

    // Another authority: first trusted beside the old one, then everything is signed by it, then it is alone.
    let next = Authority::new("next");
    let both = format!("{}{}", pair.authority.pem, next.pem);
    pair.server_files.put("ca", &both);
    pair.client_files.put("ca", &both);
    assert_eq!(who().await.as_deref(), Ok("client"));
    pair.server_files.show(&next.sign(&wanted("server")));
    assert_eq!(who().await.as_deref(), Ok("client"));
    pair.server_files.put("ca", &next.pem);
    assert!(who().await.is_err(), "the client's certificate is of an authority that went");
    pair.client_files.show(&next.sign(&wanted("renewed")));
    pair.client_files.put("ca", &next.pem);
    assert_eq!(who().await.as_deref(), Ok("renewed"));

    // A bad file changes nothing.
    pair.server_files.put("ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    pair.server_files.put("key", "nothing");
    assert_eq!(who().await.as_deref(), Ok("renewed"));

    pair.server_files.put("crl", next.revoke(&[7]));
    assert_eq!(who().await.unwrap_err(), "transport: certificate serial 07 revoked");
}

#[tokio::test]
async fn a_certificate_that_was_made_here_is_kept_and_encrypts() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("fixtures/peer");
    let urls = parse_list("https://127.0.0.1:2380,https://localhost:2380").unwrap();
    assert_eq!(
        self_signed(&folder, &urls, 0).unwrap_err(),
        "selfSignedCertValidity is invalid,it should be greater than 0"
    );
    let made = self_signed(&folder, &urls, 1).unwrap();
    let first = std::fs::read(&made.cert_file).unwrap();
    let again = self_signed(&folder, &urls, 1).unwrap();
    assert_eq!((&made, first), (&again, std::fs::read(&again.cert_file).unwrap()));
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&made.key_file), 0o600);
    let both = side(&made);
    let acceptor = both.acceptor(Endpoint::Peer).unwrap();
    let (told, heard) = Ends { acceptor, connector: both.connector() }.meet().await;
    assert_eq!((told, heard), (Ok(None), Ok(())));
    // Who has the certificate can verify it.
    let folder = Folder::new(dir.path(), "client");
    let bundle = std::fs::read(&made.cert_file).unwrap();
    let trusting =
        TlsSettings { trusted_ca_file: folder.put("ca", bundle), ..TlsSettings::default() };
    let ends = Ends {
        acceptor: both.acceptor(Endpoint::Client).unwrap(),
        connector: side(&trusting).connector(),
    };
    assert_eq!(ends.meet().await.1, Ok(()));
}

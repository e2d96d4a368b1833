//! A running server: to come with the keyspace.
use super::Built;
/// To come with the keyspace.
#[derive(Debug, thiserror::Error)]
#[error("starting a server is not built yet")]
pub struct StartError;
/// To come with the keyspace.
pub struct Server;
impl Server {
    /// To come with the keyspace.
    pub async fn spawn(_b: Built) -> Result<Server, StartError> {
        Err(StartError)
    }
    /// To come with the keyspace.
    pub async fn ready(&self) {}
    /// To come with the keyspace.
    pub async fn failed(&self) -> String {
        String::new()
    }
    /// To come with the keyspace.
    pub async fn stop(self) -> Result<(), StartError> {
        Ok(())
    }
}

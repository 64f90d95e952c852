use super::sockets::Sockets;
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProcessError(pub String);
pub struct Managed {
    sockets: Sockets,
}
impl Managed {
    pub async fn keep_running(&mut self) -> Result<(), ProcessError> {
        Ok(())
    }
    pub fn starts(&self) -> u64 {
        0
    }
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }
}

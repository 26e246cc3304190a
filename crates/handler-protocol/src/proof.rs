//! How a handler that listens and its caller show each other who they are: both know a secret that
//! nobody else was given, and neither sends it. See `docs/reference/handler-protocol.md`.

use auth::{NONCE_BYTES, PROOF_BYTES, Secret, is_same};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Shows a handler that this is its caller, and sees that it is the handler.
///
/// # Errors
/// If the stream breaks, or what listens there does not know the secret.
pub(crate) async fn exchange(stream: &mut TcpStream, secret: &Secret) -> io::Result<()> {
    let mut challenge = [0; NONCE_BYTES];
    stream.read_exact(&mut challenge).await?;
    let mut shown = [0; NONCE_BYTES + PROOF_BYTES];
    let (nonce, proof) = shown.split_at_mut(NONCE_BYTES);
    getrandom::fill(nonce).map_err(io::Error::other)?;
    proof.copy_from_slice(&secret.of_caller(&challenge, nonce));
    let expected = secret.of_handler(&challenge, nonce);
    stream.write_all(&shown).await?;
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;
    if is_same(&proof, &expected) {
        Ok(())
    } else {
        Err(io::Error::other("it is not the handler"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A listener that answers with the proof of `its`, and what the caller with `ours` says.
    async fn meet(its: Secret, ours: Secret) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[7; NONCE_BYTES]).await.unwrap();
            let mut shown = [0; NONCE_BYTES + PROOF_BYTES];
            stream.read_exact(&mut shown).await.unwrap();
            let (nonce, proof) = shown.split_at(NONCE_BYTES);
            let is_caller = is_same(proof, &its.of_caller(&[7; NONCE_BYTES], nonce));
            let answer = its.of_handler(&[7; NONCE_BYTES], nonce);
            stream.write_all(&answer).await.unwrap();
            is_caller
        };
        let calling = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            exchange(&mut stream, &ours).await
        };
        let (is_caller, exchanged) = tokio::join!(answering, calling);
        assert_eq!(is_caller, exchanged.is_ok());
        exchanged
    }

    #[tokio::test]
    async fn whoever_does_not_know_the_secret_is_neither_caller_nor_handler() {
        let secret = Secret::random().unwrap();
        meet(secret.clone(), secret.clone()).await.unwrap();
        let refused = meet(Secret::random().unwrap(), secret).await.unwrap_err();
        assert!(refused.to_string().contains("not the handler"), "{refused}");
    }
}

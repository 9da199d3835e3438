//! The least that a server for `ext_authz` can do: it knows the tokens and says yes or no.

use std::collections::HashSet;
use std::rc::Rc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::keys::token_of;

/// Serves on a port, with the tokens of so many keys, until it is ended.
///
/// # Errors
///
/// If the port is taken.
pub(crate) async fn serve(port: u16, keys: u32) -> anyhow::Result<()> {
    let tokens: Rc<HashSet<String>> = Rc::new((0..keys).map(token_of).collect());
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let tokens = Rc::clone(&tokens);
        tokio::task::spawn_local(async move {
            // Envoy closes its connections as it likes.
            let _ = answer(stream, &tokens).await;
        });
    }
}

async fn answer(mut stream: TcpStream, tokens: &HashSet<String>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8192];
    let mut length = 0;
    loop {
        length += match stream.read(buffer.get_mut(length..).unwrap_or_default()).await? {
            0 => return Ok(()),
            read => read,
        };
        let received = buffer.get(..length).unwrap_or_default();
        // Envoy sends no body unless told to, and not the next request before the answer.
        if received.ends_with(b"\r\n\r\n") {
            let head = std::str::from_utf8(received).context("not UTF-8")?;
            let token = head.lines().find_map(|line| line.strip_prefix("x-auth-token: "));
            let is_known = token.is_some_and(|token| tokens.contains(token));
            stream.write_all(if is_known { YES } else { NO }).await?;
            length = 0;
        }
    }
}

const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

const NO: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";

//! `perigee health`: asks a node whether it is ready, without curl.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};

/// How long a node may take for each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// `Ok` where `GET /ready` of `address` answers 200; else what the node, or the network, says.
pub fn ask(address: &str) -> anyhow::Result<()> {
    let answer = ready(address).with_context(|| format!("no node answers at {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).ok_or_else(|| anyhow!("{address} does not speak HTTP"))?;
    // A gRPC server answers 200 to everything, and says what it means elsewhere.
    if !head.to_ascii_lowercase().contains("\r\ncontent-type: application/json") {
        bail!("path /ready is not known at {address}; is it another port, or another program?");
    }
    if status != "200" {
        bail!("the node at {address} is not ready ({status}): {body}");
    }
    Ok(())
}

/// The whole answer. HTTP/1.0, so that it is neither chunked nor kept open.
fn ready(address: &str) -> anyhow::Result<String> {
    let mut last = anyhow!("the name has no address");
    for socket in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket, STEP_TIMEOUT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(STEP_TIMEOUT))?;
                stream.set_write_timeout(Some(STEP_TIMEOUT))?;
                stream.write_all(format!("GET /ready HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
                let mut answer = Vec::new();
                stream.take(1 << 20).read_to_end(&mut answer)?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn answering(text: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _read = stream.read(&mut request).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_ready_node_is_healthy() {
        ask(&answering("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")).unwrap();
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let answer =
            "HTTP/1.0 503 Service Unavailable\r\ncontent-type: application/json\r\n\r\n{\"database\":\"gone\"}";

        let error = ask(&answering(answer)).unwrap_err();

        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn a_grpc_server_is_not_healthy_by_its_200() {
        let error = ask(&answering("HTTP/1.0 200 OK\r\ncontent-type: application/grpc\r\n\r\n")).unwrap_err();

        assert!(error.to_string().contains("path /ready is not known"), "{error}");
    }

    #[test]
    fn what_does_not_speak_http_is_not_healthy() {
        assert!(ask(&answering("SSH-2.0\r\n")).is_err());
    }
}

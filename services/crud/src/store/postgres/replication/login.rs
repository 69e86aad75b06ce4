//! Log-in of a replication connection, as the driver does it for others.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::frontend,
};
use tokio_postgres::Config;

use super::{Message, ReplicationConnection, ReplicationError, lost, refusal};

/// Kinds of authentication messages.
const OK: u32 = 0;
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// Logs in to the database of `config` as a connection called `name`, until the server is ready for queries.
pub async fn log_in(
    connection: &mut ReplicationConnection,
    config: &Config,
    name: &str,
) -> Result<(), ReplicationError> {
    let user = config.get_user().ok_or_else(|| lost("the url names no user"))?;
    let mut parameters = vec![
        ("user", user),
        ("database", config.get_dbname().unwrap_or(user)),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", name),
    ];
    parameters.extend(config.get_options().map(|options| ("options", options)));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)?;
    connection.send(&message).await?;

    let password = || config.get_password().ok_or_else(|| lost("the server asks for a password, the url has none"));
    let mut scram = None;
    loop {
        let Message { tag, mut body, .. } = connection.next().await?;
        match tag {
            b'R' => {}
            b'E' => return Err(refusal(&body)),
            b'Z' => return Ok(()),
            _ => continue,
        }
        let mut answer = BytesMut::new();
        match body.try_get_u32().map_err(|_| malformed())? {
            OK => continue,
            CLEARTEXT => frontend::password_message(password()?, &mut answer)?,
            MD5 => {
                let salt = body.first_chunk().copied().ok_or_else(malformed)?;
                frontend::password_message(md5_hash(user.as_bytes(), password()?, salt).as_bytes(), &mut answer)?;
            }
            SASL => {
                let mechanisms: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
                if !mechanisms.contains(&SCRAM_SHA_256.as_bytes()) {
                    return Err(lost("the server asks for an authentication that is not supported"));
                }
                let exchange = ScramSha256::new(password()?, ChannelBinding::unsupported());
                frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut answer)?;
                scram = Some(exchange);
            }
            SASL_CONTINUE => {
                let exchange = scram.as_mut().ok_or_else(malformed)?;
                exchange.update(&body)?;
                frontend::sasl_response(exchange.message(), &mut answer)?;
            }
            SASL_FINAL => {
                finish(scram.as_mut(), &body)?;
                continue;
            }
            _ => return Err(lost("the server asks for an authentication that is not supported")),
        }
        connection.send(&answer).await?;
    }
}

/// Checks that the server knows the password too.
fn finish(scram: Option<&mut ScramSha256>, body: &Bytes) -> Result<(), ReplicationError> {
    Ok(scram.ok_or_else(malformed)?.finish(body)?)
}

fn malformed() -> ReplicationError {
    lost("a malformed message of authentication")
}

//! Signatures of messages. Source: Standard Webhooks, "Signature scheme".

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use query::trigger::SigningSecrets;
use sha2::Sha256;

/// The value of `webhook-signature`: one signature for each secret. `None` where there is no secret.
pub fn signatures(secrets: &SigningSecrets, id: &str, unix_seconds: u64, body: &[u8]) -> Option<String> {
    let signature = |secret: &Vec<u8>| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{unix_seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    let all: Vec<String> = secrets.0.iter().map(signature).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the test vector of the libraries of Standard Webhooks.
    #[test]
    fn the_known_message_has_the_known_signature() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let sign = |secrets: Vec<Vec<u8>>| {
            signatures(
                &SigningSecrets(secrets),
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
            )
        };
        let known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(vec![secret.clone()]).as_deref(), Some(known));
        let both = sign(vec![vec![7; 24], secret]).unwrap();
        assert!(both.starts_with("v1,") && both.ends_with(&format!(" {known}")), "{both}");
        assert_eq!(sign(vec![]), None);
    }
}

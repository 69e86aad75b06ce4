//! Signing keys: those of a project, and generated development keys for a project without any.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use query::resources::{self, Project, TokenKey};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::{error::Error, token::SECRET_BYTES};

/// A token of the project `id` with these claims, signed with its primary key, else its first, else its development key
/// under `dev_keys`.
///
/// `exp`, `iat` and, where the key asks for them, `iss` and `aud` are added if the claims do not have them.
pub fn sign(
    project: &Project,
    id: &str,
    claims: &Map<String, Json>,
    expires: Duration,
    dev_keys: Option<&Path>,
) -> Result<String, Error> {
    let key = match (primary_key(project), dev_keys) {
        (Some(key), _) => key.clone(),
        (None, Some(dir)) => dev_token_key(dir, id)?,
        (None, None) => return Err(Error::NoKey(id.to_owned())),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut claims = claims.clone();
    let mut add = |name: &str, value: Json| {
        claims.entry(name).or_insert(value);
    };
    add("iat", now.as_secs().into());
    add("exp", now.saturating_add(expires).as_secs().into());
    if let Some(iss) = key.iss.first() {
        add("iss", iss.as_str().into());
    }
    if let Some(aud) = key.aud.first() {
        add("aud", aud.as_str().into());
    }
    encode(&key, &claims)
}

/// The signing key of the project: its primary one, else its first.
pub fn primary_key(project: &Project) -> Option<&TokenKey> {
    primary_of(&project.tokens)
}

/// The signing key of these: the primary one, else the first.
pub(crate) fn primary_of(keys: &[TokenKey]) -> Option<&TokenKey> {
    keys.iter().find(|key| key.primary).or_else(|| keys.first())
}

/// A token with exactly these claims.
pub(crate) fn encode(key: &TokenKey, claims: &impl Serialize) -> Result<String, Error> {
    let (algorithm, encoding) = match key.alg {
        resources::Algorithm::Hs256 => (Algorithm::HS256, EncodingKey::from_secret(key.secret.as_bytes())),
    };
    let header = Header { kid: key.kid.clone(), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &encoding).map_err(Error::Sign)
}

/// The development key of a project, as one that it could have configured.
pub(crate) fn dev_token_key(dir: &Path, project: &str) -> io::Result<TokenKey> {
    let secret = dev_key(dir, project)?;
    Ok(TokenKey { kid: None, alg: resources::Algorithm::Hs256, secret, aud: vec![], iss: vec![], primary: true })
}

/// The secret of a development key, in hex.
///
/// It is generated on first use and stored in `<dir>/<project>.key`, which only the owner of the file may read.
pub fn dev_key(dir: &Path, project: &str) -> io::Result<String> {
    if !is_file_name(project) {
        let message = format!("invalid project id {project:?} for a key file: expected letters, digits, - and _");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let path = dir.join(format!("{project}.key"));
    if fs::exists(&path)? {
        return stored_secret(&path, &fs::read_to_string(&path)?);
    }
    fs::create_dir_all(dir)?;
    let random: [u8; SECRET_BYTES] = rand::random();
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Written to a temporary file and linked into place: a concurrent reader sees a whole key or none, and of two
    // concurrent writers the second uses the key of the first.
    let new = dir.join(format!(".{project}.{}.{:08x}.new", std::process::id(), rand::random::<u32>()));
    let mut file = owner_only().open(&new)?;
    let linked = file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        drop(file);
        fs::hard_link(&new, &path)
    });
    fs::remove_file(&new)?;
    match (linked, fs::read_to_string(&path)) {
        (Ok(()), _) => Ok(secret),
        (Err(_), Ok(text)) => stored_secret(&path, &text),
        (Err(error), Err(_)) => Err(error),
    }
}

fn stored_secret(path: &Path, text: &str) -> io::Result<String> {
    let secret = text.trim();
    if secret.len() >= SECRET_BYTES {
        return Ok(secret.to_owned());
    }
    let message = format!(
        "{}: expected a key of at least {SECRET_BYTES} bytes; delete the file to get a new one",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

fn is_file_name(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&id.len()) && id.bytes().all(safe)
}

fn owner_only() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::KeySet;

    fn project(json: Json) -> Project {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_dev_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let made = dev_key(&keys, "shop").unwrap();
        assert_eq!(made.len(), 64);
        assert_eq!(dev_key(&keys, "shop").unwrap(), made);
        assert_ne!(dev_key(&keys, "other").unwrap(), made);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(keys.join("shop.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn makers_at_the_same_time_agree_on_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| dev_key(dir.path(), "shop").unwrap())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn a_project_id_that_leaves_the_folder_names_no_key() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["", "..", "a/b", "a\\b", "a\0b", ".hidden", &"x".repeat(200)] {
            assert_eq!(dev_key(dir.path(), id).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{id:?}");
        }
        let long = "x".repeat(128);
        for id in ["a", "a-b", "a_b", "9", &long] {
            assert!(dev_key(dir.path(), id).is_ok(), "{id:?}");
        }
        fs::write(dir.path().join("short.key"), "abc").unwrap();
        assert_eq!(dev_key(dir.path(), "short").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_signed_token_passes_the_key_that_signed_it() {
        let secret = "0123456789abcdef0123456789abcdef";
        let spec = project(serde_json::json!({"tokens": [
            {"kid": "old", "secret": "another secret of thirty-two bytes"},
            {"kid": "main", "secret": secret, "primary": true, "iss": ["me"], "aud": ["a1", "a2"]},
        ]}));
        let claims = serde_json::json!({"id": 5, "exp": 4_000_000_000_i64});
        let token = sign(&spec, "shop", claims.as_object().unwrap(), Duration::from_secs(60), None).unwrap();
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid.as_deref(), Some("main"));
        let keys = KeySet::new(spec.tokens.clone());
        let read = keys.claims(&token, 3_999_999_999).unwrap();
        assert_eq!(read.get("id"), Some(&query::Value::Int(5)));
        assert_eq!(read.get("iss"), Some(&query::Value::Text("me".to_owned())));
        assert_eq!(read.get("aud"), Some(&query::Value::Text("a1".to_owned())));
        assert_eq!(read.get("exp"), Some(&query::Value::Int(4_000_000_000)));
    }

    #[test]
    fn a_project_without_keys_signs_only_in_development() {
        let dir = tempfile::tempdir().unwrap();
        let spec = Project::default();
        let signed = |dir| sign(&spec, "shop", &Map::new(), Duration::from_secs(60), dir);
        assert!(matches!(signed(None), Err(Error::NoKey(id)) if id == "shop"));
        let token = signed(Some(dir.path())).unwrap();
        let keys = KeySet::new(vec![dev_token_key(dir.path(), "shop").unwrap()]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(keys.claims(&token, i64::try_from(now).unwrap()).is_ok());
    }
}

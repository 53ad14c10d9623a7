//! A token server as registries have them: it gives whoever it knows a signed token for what they may read, and anybody one
//! for nothing.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use crate::base64;

/// For whom the registry's tokens are, and by whom: the same here.
pub const SERVICE: &str = "e2e";
/// A token's life.
const LIFE: Duration = Duration::from_secs(300);

/// Somebody whom the server knows.
#[derive(Debug, Clone, Copy)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// And the password.
    pub password: &'static str,
    /// The repositories that are for this user.
    pub repositories: &'static [&'static str],
}

impl User {
    /// The value of `Authorization: Basic`.
    pub fn basic(&self) -> String {
        format!(
            "Basic {}",
            base64(format!("{}:{}", self.name, self.password).as_bytes())
        )
    }
}

/// A token server that runs as long as the test.
#[derive(Debug)]
pub struct Tokens {
    address: SocketAddr,
    certificate: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    users: Vec<User>,
    key: EcdsaKeyPair,
    /// The certificate as a token carries it.
    x5c: String,
    issued: Mutex<Vec<String>>,
}

impl Tokens {
    /// Starts one that knows these users; its certificate goes into `dir`.
    pub fn start(dir: &Path, users: &[User]) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("ring makes such keys");
        let params = CertificateParams::new(vec!["tokens".to_owned()]).expect("the name is valid");
        let made = params.self_signed(&pair).expect("it signs itself");
        let certificate = dir.join("tokens.pem");
        std::fs::write(&certificate, made.pem()).expect("the lab is writable");
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der(), &random);
        let shared = Arc::new(Shared {
            users: users.to_vec(),
            key: key.expect("it was just made"),
            x5c: base64(made.der()),
            issued: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A client that hangs up is none of the server's business.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Self {
            address,
            certificate,
            shared,
        }
    }

    /// The part of a registry's configuration that makes it believe this server's tokens.
    pub fn registry_config(&self) -> String {
        format!(
            "auth: {{token: {{realm: 'http://{}/token', service: {SERVICE}, issuer: {SERVICE}, rootcertbundle: {:?}}}}}\n",
            self.address, self.certificate
        )
    }

    /// The value of `Authorization` with a token for what a user may read of a repository.
    pub fn bearer(&self, user: &User, repository: &str) -> String {
        let now = SystemTime::now();
        format!(
            "Bearer {}",
            self.shared.token(user.repositories, repository, now, now + LIFE)
        )
    }

    /// The same with a token that ended a while ago.
    pub fn expired(&self, user: &User, repository: &str) -> String {
        let end = SystemTime::now() - Duration::from_secs(600);
        format!(
            "Bearer {}",
            self.shared.token(user.repositories, repository, end - LIFE, end)
        )
    }

    /// Everything that it has given out, to whomever.
    pub fn issued(&self) -> Vec<String> {
        self.shared
            .issued
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut authorization = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("authorization") {
                authorization = Some(value.to_owned());
            }
        }
        let (status, body) = self.answer(&line, authorization.as_deref());
        let mut client = client;
        write!(
            client,
            "HTTP/1.1 {status} Tokens\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn answer(&self, line: &str, authorization: Option<&str>) -> (u16, String) {
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "GET" {
            // containerd then asks by GET.
            return (405, String::new());
        }
        let user = authorization.map(|shown| self.users.iter().find(|user| user.basic() == shown));
        let readable = match user {
            None => &[][..],
            Some(Some(user)) => user.repositories,
            Some(None) => return (401, String::new()),
        };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        let decoded = scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","));
        // The last of several is the one that a client was told it lacks.
        let repository = decoded
            .filter_map(|scope| Some(scope.split(':').nth(1)?.to_owned()))
            .next_back();
        let now = SystemTime::now();
        let token = self.token(readable, &repository.unwrap_or_default(), now, now + LIFE);
        (
            200,
            format!("{{\"token\":\"{token}\",\"expires_in\":{}}}", LIFE.as_secs()),
        )
    }

    fn token(&self, readable: &[&str], repository: &str, from: SystemTime, to: SystemTime) -> String {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let access = if readable.contains(&repository) {
            format!("{{\"type\":\"repository\",\"name\":\"{repository}\",\"actions\":[\"pull\"]}}")
        } else {
            String::new()
        };
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let header = format!("{{\"typ\":\"JWT\",\"alg\":\"ES256\",\"x5c\":[\"{}\"]}}", self.x5c);
        let claims = format!(
            "{{\"iss\":\"{SERVICE}\",\"sub\":\"\",\"aud\":\"{SERVICE}\",\"exp\":{},\"nbf\":{},\"iat\":{},\"jti\":\"{}\",\"access\":[{access}]}}",
            seconds(to),
            seconds(from),
            seconds(from),
            issued.len(),
        );
        let mut token = format!("{}.{}", url(header.as_bytes()), url(claims.as_bytes()));
        let signature = self
            .key
            .sign(&SystemRandom::new(), token.as_bytes())
            .expect("the key signs");
        write!(token, ".{}", url(signature.as_ref())).expect("strings take everything");
        issued.push(token.clone());
        token
    }
}

/// Base64 as tokens have it.
fn url(bytes: &[u8]) -> String {
    base64(bytes)
        .replace('+', "-")
        .replace('/', "_")
        .trim_end_matches('=')
        .to_owned()
}

//! Docker's credential helpers: programs named `docker-credential-NAME` that keep secrets for `config.json`.
//!
//! One is run only because a file that the operator named says so, with the registry's name on its standard input, and its
//! answer lives until the request is made. Its time and what it may print are bounded; what it prints is never shown.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::credentials::Credential;

/// Helpers of clouds ask their services; one that waits for somebody at a screen would wait forever.
const PATIENCE: Duration = Duration::from_secs(15);
/// Tokens of clouds have a few KiB.
const MAX_OUTPUT: u64 = 64 << 10;
/// The user name that says that the secret is an identity token.
const IDENTITY: &str = "<token>";
/// What every helper says, in the words of Docker's own library, when it has nothing for a registry.
const NOTHING: &str = "credentials not found";

/// A helper, and what it is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    name: String,
    server: String,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Answer {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl Helper {
    /// The helper of this name for this server.
    ///
    /// # Errors
    /// If the name would lead anywhere but to a program of the form `docker-credential-NAME`.
    pub(crate) fn new(name: &str, server: &str) -> Result<Self, String> {
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !name.bytes().all(fit) {
            return Err("the name of a credential helper is letters, digits and . _ -".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            server: server.to_owned(),
        })
    }

    /// Asks it; none where it has nothing for the server.
    ///
    /// # Errors
    /// If it cannot be run, fails, or answers something else than a credential. Never says what it printed.
    pub(crate) async fn get(&self) -> Result<Option<Credential>, String> {
        let program = format!("docker-credential-{}", self.name);
        match tokio::time::timeout(PATIENCE, self.run(Path::new(&program))).await {
            Ok(answered) => answered.map_err(|reason| format!("{program} get: {reason}")),
            Err(_) => Err(format!(
                "{program} get: no answer for {} s; it was stopped",
                PATIENCE.as_secs()
            )),
        }
    }

    async fn run(&self, program: &Path) -> Result<Option<Credential>, String> {
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot be run: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input may answer all the same.
            let _ = stdin.write_all(self.server.as_bytes()).await;
        }
        // Reserved at once: growing would leave copies of the secret behind.
        let mut output = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT as usize + 1));
        let stdout = child.stdout.take().ok_or("its output cannot be read")?;
        let read = stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output).await;
        read.map_err(|error| format!("its output cannot be read: {error}"))?;
        if output.len() as u64 > MAX_OUTPUT {
            return Err(format!("printed more than {MAX_OUTPUT} bytes"));
        }
        let status = child
            .wait()
            .await
            .map_err(|error| format!("cannot be waited for: {error}"))?;
        if !status.success() {
            let nothing = std::str::from_utf8(&output).is_ok_and(|text| text.contains(NOTHING));
            return if nothing {
                Ok(None)
            } else {
                Err(format!("failed ({status})"))
            };
        }
        read_answer(&output)
    }
}

fn read_answer(output: &[u8]) -> Result<Option<Credential>, String> {
    let answer: Answer = serde_json::from_slice(output).map_err(|_| "its answer is not the JSON of a credential")?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    if answer.user == IDENTITY {
        return Ok(Some(Credential::Identity(answer.secret.clone())));
    }
    if answer.user.is_empty() || answer.user.contains(':') {
        return Err("its answer has no user that a registry could tell from the password".to_owned());
    }
    Ok(Some(Credential::Basic {
        user: answer.user.clone(),
        password: answer.secret.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_helpers() {
        let read = |text: &str| read_answer(text.as_bytes());
        let basic = Credential::Basic {
            user: "u".into(),
            password: "p:w".into(),
        };
        assert_eq!(
            read(r#"{"ServerURL":"r","Username":"u","Secret":"p:w"}"#),
            Ok(Some(basic))
        );
        assert_eq!(
            read(r#"{"ServerURL":"r","Username":"<token>","Secret":"refresh"}"#),
            Ok(Some(Credential::Identity("refresh".into())))
        );
        assert_eq!(read(r#"{"Username":"u","Secret":""}"#), Ok(None));
        for wrong in [
            r#"{"Username":"","Secret":"hidden"}"#,
            r#"{"Username":"a:b","Secret":"hidden"}"#,
            "hidden",
        ] {
            assert!(!read(wrong).unwrap_err().contains("hidden"));
        }
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_its_server_and_believed_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let helper = Helper::new("test", "registry.example:5000").unwrap();
        let echo = script(
            "echo",
            r#"read -r server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}""#,
        );
        let asked = Credential::Basic {
            user: "get".into(),
            password: "registry.example:5000".into(),
        };
        // The server is one line without its end, which `read` reports as a failure and takes all the same.
        assert_eq!(helper.run(&echo).await, Ok(Some(asked)));
        let nothing = script("nothing", "echo 'credentials not found in native keychain'; exit 1");
        assert_eq!(helper.run(&nothing).await, Ok(None));
        let failing = script("failing", "echo hidden; exit 3");
        assert!(helper.run(&failing).await.unwrap_err().contains("failed"));
        let endless = script("endless", "yes hidden");
        let refused = helper.run(&endless).await.unwrap_err();
        assert!(
            refused.contains("printed more") && !refused.contains("hidden"),
            "{refused}"
        );
        let missing = helper.run(&dir.path().join("missing")).await.unwrap_err();
        assert!(missing.contains("cannot be run"), "{missing}");
    }

    #[test]
    fn a_helper_is_a_program_of_its_kind_and_nothing_else() {
        assert!(Helper::new("ecr-login", "r").is_ok());
        for name in ["", "a/b", "../x", "a b", "a;b"] {
            assert!(Helper::new(name, "r").is_err(), "{name}");
        }
    }
}

//! What a command that failed says: one sentence, and what caused it.

use std::error::Error;

/// Why a command failed. Its text says what was attempted, on what, and what can be done.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Says on standard error what failed and why.
pub(crate) fn report(error: &(dyn Error + 'static)) {
    eprintln!("error: {}", sentence(error));
}

/// An error with its causes, each said once: many errors already tell their cause in their own text.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let disk = Told {
            text: "no space left",
            cause: None,
        };
        let write = Told {
            text: "cannot write x: no space left",
            cause: Some(Box::new(disk)),
        };
        let pull = Told {
            text: "cannot pull m",
            cause: Some(Box::new(write)),
        };
        assert_eq!(sentence(&pull), "cannot pull m: cannot write x: no space left");
    }
}

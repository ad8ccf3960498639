//! Answers to what is no request, or not a whole one (pure): there is no head to be routed, but a caller who reads.

use serde_json::json;

use super::{
    guard::Refusal,
    reply::{ERROR_HEADER, REQUEST_ID},
};

/// What a caller did instead of sending a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headless {
    /// Something that is not HTTP as it should be.
    Malformed,
    /// Something that others may read differently.
    Ambiguous,
    /// HTTP/2, begun without asking.
    Http2,
    /// More than is read.
    TooLarge,
    /// Nothing more, for too long.
    Late,
}

impl Headless {
    /// What the server's own bare answer, of which this is the beginning, is about.
    pub fn told_by(answer: &[u8]) -> Self {
        if answer.starts_with(b"HTTP/1.1 431") {
            Self::TooLarge
        } else {
            Self::Malformed
        }
    }

    /// Word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed | Self::Ambiguous => "BadRequest",
            Self::Http2 => "HttpVersion",
            Self::TooLarge => "HeadTooLarge",
            Self::Late => "HeadTimeout",
        }
    }

    /// The whole answer, head and body.
    pub fn answer(self, id: &str) -> String {
        let code = self.code();
        let ambiguous = Refusal::Framing.to_string();
        let (status, message) = match self {
            Self::Malformed => (
                "400 Bad Request",
                "the request is not HTTP/1.1 as it should be",
            ),
            Self::Ambiguous => ("400 Bad Request", ambiguous.as_str()),
            Self::Http2 => (
                "505 HTTP Version Not Supported",
                "HTTP/2 is not spoken here: send HTTP/1.1",
            ),
            Self::TooLarge => (
                "431 Request Header Fields Too Large",
                "the request's head is larger than 64 KiB, or has more than 100 fields",
            ),
            Self::Late => (
                "408 Request Timeout",
                "the request's head did not come within 10s",
            ),
        };
        let body = json!({"message": message, "code": code}).to_string();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{ERROR_HEADER}: {code}\r\n{REQUEST_ID}: {id}\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn answers_are_as_long_as_they_say_and_name_what_is_enforced() {
        for (headless, status, limits) in [
            (Headless::Malformed, "400 ", vec![]),
            (Headless::Ambiguous, "400 ", vec!["one way".to_owned()]),
            (Headless::Http2, "505 ", vec!["HTTP/1.1".to_owned()]),
            (
                Headless::TooLarge,
                "431 ",
                vec![
                    format!("{} KiB", MAX_HEAD >> 10),
                    format!("{MAX_FIELDS} fields"),
                ],
            ),
            (
                Headless::Late,
                "408 ",
                vec![format!("{}s", timed::HEAD_TIME.as_secs())],
            ),
        ] {
            let answer = headless.answer("a-1");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(status) && head.contains("x-request-id: a-1"));
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(head.contains(&format!("x-faas-error: {}", body["code"].as_str().unwrap())));
            for limit in limits {
                assert!(body["message"].as_str().unwrap().contains(&limit), "{body}");
            }
        }
    }
}

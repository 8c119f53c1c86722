//! HTTP/1.1 as far as reading one page takes it (RFC 9110, RFC 9112).

use httparse::{EMPTY_HEADER, Header, Status};

use super::text::Format;

/// The most bytes that the head of a request may have.
pub const MAX_HEAD: usize = 8 << 10;

/// The most fields that it may have.
const MAX_FIELDS: usize = 64;

/// The page with the metrics.
const PAGE: &str = "/metrics";

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of its head.
    pub len: usize,
    /// What the answer has.
    pub wants: Result<Format, Refusal>,
    /// Only the head of that.
    pub head_only: bool,
    /// Whether more requests may follow.
    pub stays: bool,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request, or has a body.
    Bad,
    /// There is no such page.
    NotFound,
    /// It is not for reading.
    Method,
    /// Its head is too long.
    TooLarge,
}

impl Refusal {
    const fn status(self) -> &'static str {
        match self {
            Self::Bad => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }

    /// What a person reads.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Bad => "this is no request for a page\n",
            Self::NotFound => "the figures of this switch are at /metrics\n",
            Self::Method => "there is nothing here but to be read\n",
            Self::TooLarge => "the head of a request may have 8 KiB and 64 fields\n",
        }
    }
}

impl Request {
    /// The request at the beginning of `input`; `None` while it is not complete.
    pub fn read(input: &[u8]) -> Option<Self> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(input) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) if input.len() < MAX_HEAD => return None,
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Some(Self::refused(input.len(), Refusal::TooLarge));
            }
            Err(_) => return Some(Self::refused(input.len(), Refusal::Bad)),
        };
        if has_body(request.headers) {
            return Some(Self::refused(len, Refusal::Bad));
        }
        let path = request.path.unwrap_or_default();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let wants = match (request.method, path) {
            (Some("GET" | "HEAD"), PAGE) => Ok(negotiate(request.headers)),
            (Some("GET" | "HEAD"), _) => Err(Refusal::NotFound),
            _ => Err(Refusal::Method),
        };
        let head_only = request.method == Some("HEAD");
        let is_new = request.version == Some(1);
        let stays = stays(request.headers, is_new) && wants != Err(Refusal::Method);
        Some(Self { len, wants, head_only, stays })
    }

    /// After this nobody knows where the next request would begin.
    const fn refused(len: usize, refusal: Refusal) -> Self {
        Self { len, wants: Err(refusal), head_only: false, stays: false }
    }

    /// The head of the answer, whose body has `length` bytes.
    pub fn head(&self, length: usize) -> String {
        let (status, kind) = match self.wants {
            Ok(format) => ("200 OK", format.content_type()),
            Err(refusal) => (refusal.status(), "text/plain; charset=utf-8"),
        };
        let allow = if self.wants == Err(Refusal::Method) { "Allow: GET, HEAD\r\n" } else { "" };
        let connection = if self.stays { "keep-alive" } else { "close" };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             {allow}Connection: {connection}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n\r\n"
        )
    }
}

/// The values of a field, those of a list one by one.
fn values<'a>(fields: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let texts = named.filter_map(|field| std::str::from_utf8(field.value).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// Whether something follows the head (RFC 9112, section 6).
fn has_body(fields: &[Header<'_>]) -> bool {
    let has = |name| fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    has("transfer-encoding")
        || has("content-length") && values(fields, "content-length").any(|length| length != "0")
}

/// Whether the connection stays open (RFC 9112, section 9.3).
fn stays(fields: &[Header<'_>], is_new: bool) -> bool {
    let has =
        |option: &str| values(fields, "connection").any(|value| value.eq_ignore_ascii_case(option));
    !has("close") && (is_new || has("keep-alive"))
}

/// What the client likes best (RFC 9110, section 12.5.1); Prometheus' own format where it says
/// nothing, and where it likes neither, rather than no answer.
fn negotiate(fields: &[Header<'_>]) -> Format {
    let mut open = 0;
    let mut older = 0;
    for range in values(fields, "accept") {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let mut weight = 1_000;
        let mut version = None;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => weight = thousandths(value.trim()),
                name if name.eq_ignore_ascii_case("version") => version = Some(value.trim()),
                _ => {}
            }
        }
        let version = version.map(|version| version.trim_matches('"'));
        if kind.eq_ignore_ascii_case("application/openmetrics-text") {
            // Version 0.0.1, of before the standard, is read by whoever reads 1.0.0.
            if version.is_none_or(|version| version.starts_with("1.") || version == "0.0.1") {
                open = open.max(weight);
            }
        } else if kind.eq_ignore_ascii_case("text/plain") {
            if version.is_none_or(|version| version == "0.0.4") {
                older = older.max(weight);
            }
        } else if kind == "*/*" || kind.eq_ignore_ascii_case("text/*") {
            older = older.max(weight);
        }
    }
    if open > older || (open == older && open > 0) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

/// A weight, as in `0.5` (RFC 9110, section 12.4.2); 0 where it is none.
fn thousandths(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{part:0<3}");
    let part = digits.get(..3).and_then(|digits| digits.parse::<u32>().ok());
    match (whole, part) {
        ("0", Some(part)) => part,
        ("1", Some(_)) => 1_000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Request> {
        Request::read(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn a_page_is_asked_for_and_all_else_is_refused() {
        for (text, wants) in [
            ("GET /metrics HTTP/1.1\nHost: a\n\n", Ok(Format::Prometheus)),
            ("HEAD /metrics?name[]=x HTTP/1.0\n\n", Ok(Format::Prometheus)),
            ("GET / HTTP/1.1\n\n", Err(Refusal::NotFound)),
            ("GET /metrics/../x HTTP/1.1\n\n", Err(Refusal::NotFound)),
            ("POST /metrics HTTP/1.1\nContent-Length: 0\n\n", Err(Refusal::Method)),
            ("POST /metrics HTTP/1.1\nContent-Length: 5\n\n", Err(Refusal::Bad)),
            ("GET /metrics HTTP/1.1\nContent-Length: 0, 5\n\n", Err(Refusal::Bad)),
            ("GET /metrics HTTP/1.1\nTransfer-Encoding: chunked\n\n", Err(Refusal::Bad)),
            ("GET /metrics HTTP/2.0\n\n", Err(Refusal::Bad)),
            ("{\"command\":\"info\"}\n", Err(Refusal::Bad)),
            ("\u{0}\u{1}\n\n", Err(Refusal::Bad)),
        ] {
            let request = read(text).unwrap();
            assert_eq!(request.wants, wants, "{text}");
            let may_stay = !matches!(wants, Err(Refusal::Bad | Refusal::Method));
            assert!(may_stay || !request.stays, "{text}");
        }
        assert_eq!(read("GET /metrics HTTP/1.1\nHost: a\n"), None);
        assert_eq!(read(""), None);
        let many = format!("GET /metrics HTTP/1.1\n{}\n", "A: b\n".repeat(65));
        assert_eq!(read(&many).unwrap().wants, Err(Refusal::TooLarge));
        let long = format!("GET /metrics HTTP/1.1\nA: {}", "x".repeat(MAX_HEAD));
        assert_eq!(read(&long).unwrap().wants, Err(Refusal::TooLarge));
    }

    #[test]
    fn connections_stay_as_their_version_has_it() {
        for (text, stays) in [
            ("GET /metrics HTTP/1.1\n\n", true),
            ("GET /metrics HTTP/1.1\nConnection: Close\n\n", false),
            ("GET /metrics HTTP/1.1\nConnection: te, close\n\n", false),
            ("GET /metrics HTTP/1.0\n\n", false),
            ("GET /metrics HTTP/1.0\nconnection: Keep-Alive\n\n", true),
        ] {
            assert_eq!(read(text).unwrap().stays, stays, "{text}");
        }
        let two = "GET /metrics HTTP/1.1\n\nGET / HTTP/1.1\n\n";
        assert_eq!(read(two).unwrap().len, "GET /metrics HTTP/1.1\r\n\r\n".len());
    }

    #[test]
    fn the_format_is_what_the_client_likes_best() {
        use Format::{OpenMetrics, Prometheus};
        // As Prometheus 2.42 and 3.5 have it, by their sources.
        let older = "application/openmetrics-text;version=1.0.0,\
                     application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let newer = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     application/openmetrics-text;version=0.0.1;q=0.4,\
                     text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                     text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (older, OpenMetrics),
            (newer, OpenMetrics),
            ("*/*", Prometheus),
            ("", Prometheus),
            ("application/json", Prometheus),
            ("text/plain;version=0.0.4", Prometheus),
            ("text/html, Application/OpenMetrics-Text; Version=\"1.0.0\"", OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Prometheus),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.3", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=x,*/*;q=0.001", Prometheus),
        ] {
            let request = read(&format!("GET /metrics HTTP/1.1\nAccept: {accept}\n\n")).unwrap();
            assert_eq!(request.wants, Ok(expected), "{accept}");
        }
        assert_eq!([thousandths("0.05"), thousandths("1"), thousandths("2")], [50, 1_000, 0]);
    }
}

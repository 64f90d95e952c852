//! What of a line of HAProxy's configuration is a secret, and what people see of the line.
//!
//! HAProxy's own secrets have keywords; others are known by the header, variable or parameter that
//! they are the value of, and by how they look: credentials of HTTP, and those in a URL. A line of
//! which too much is hidden is the lesser evil.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// What the names of headers, variables and parameters have whose values are secrets.
const NAMES: [&str; 13] = [
    "authorization",
    "password",
    "passwd",
    "secret",
    "token",
    "api-key",
    "api_key",
    "apikey",
    "credential",
    "access-key",
    "access_key",
    "private-key",
    "x-auth",
];
/// Words of such names.
const WORDS: [&str; 9] =
    ["auth", "jwt", "key", "pass", "passphrase", "pwd", "session", "sig", "signature"];
/// Parameters of a URL or form, with what follows them.
const PARAMETERS: [&str; 9] = [
    "password=",
    "passwd=",
    "pwd=",
    "secret=",
    "token=",
    "api_key=",
    "apikey=",
    "api-key=",
    "access_key=",
];
/// Converters of which an argument may be a key, and how many stand before it.
const KEYED: [(&str, usize); 7] = [
    ("hmac(", 1),
    ("jwt_verify(", 1),
    ("jwt_decrypt_secret(", 0),
    ("aes_gcm_enc(", 2),
    ("aes_gcm_dec(", 2),
    ("aes_cbc_enc(", 2),
    ("aes_cbc_dec(", 2),
];

/// A line as people see it; none where it has no secret.
pub fn masked(line: &str) -> Option<String> {
    replaced(line, &secrets(line))
}

/// A text that is no line of HAProxy's as people see it; none where it has no secret.
pub fn masked_text(text: &str) -> Option<String> {
    replaced(text, &secrets_of_text(text))
}

/// Where the secrets of a line are, in their order.
pub fn secrets(line: &str) -> Vec<Range<usize>> {
    let words = words(line);
    let mut found = Vec::new();
    by_keywords(line, &words, &mut found);
    by_names(&words, &mut found);
    by_criteria(&words, &mut found);
    by_looks(line, &words, &mut found);
    apart(found)
}

/// Where those of any other text are.
pub fn secrets_of_text(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    by_looks(text, &words(text), &mut found);
    apart(found)
}

/// Whether the value of a header, variable or parameter of this name is a secret.
pub fn is_name_of_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|it: char| !it.is_ascii_alphanumeric());
    ["cookie", "set-cookie"].contains(&&*name)
        || NAMES.iter().any(|part| name.contains(part))
        || words.any(|word| WORDS.contains(&word))
}

/// A part of a line as HAProxy reads it.
pub(super) fn read(part: &str) -> String {
    words(part).into_iter().map(|word| word.text).collect::<Vec<_>>().join(" ")
}

pub(super) fn replaced(text: &str, secrets: &[Range<usize>]) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for Range { start, end } in secrets {
        shown.push_str(&text[at..*start]);
        shown.push_str(HIDDEN);
        at = *end;
    }
    shown.push_str(&text[at..]);
    Some(shown)
}

/// In their order, and those that overlap as one.
pub(super) fn apart(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.retain(|range| range.start < range.end);
    found.sort_by_key(|range| (range.start, range.end));
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in found {
        match apart.last_mut().filter(|last| range.start < last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => apart.push(range),
        }
    }
    apart
}

/// A word of a line, where it stands and as HAProxy reads it.
struct Word {
    place: Range<usize>,
    text: String,
}

/// The words of a line, also of one that HAProxy would refuse.
fn words(line: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let (mut quote, mut is_in_word) = (None, false);
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_ascii_whitespace() {
            is_in_word = false;
            continue;
        }
        if !is_in_word {
            words.push(Word { place: at..at, text: String::new() });
            is_in_word = true;
        }
        let Some(word) = words.last_mut() else { continue };
        word.place.end = at + character.len_utf8();
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (Some('"') | None, '\\') => {
                if let Some((at, next)) = characters.next() {
                    word.place.end = at + next.len_utf8();
                    match next {
                        'n' => word.text.push('\n'),
                        'r' => word.text.push('\r'),
                        't' => word.text.push('\t'),
                        _ => word.text.push(next),
                    }
                }
            }
            _ => word.text.push(character),
        }
    }
    words
}

/// The lines that are there for a secret.
fn by_keywords(line: &str, words: &[Word], found: &mut Vec<Range<usize>>) {
    let texts: Vec<&str> = words.iter().map(|word| &*word.text).collect();
    let end = line.trim_end().len();
    let mut rest = |from: usize| {
        found.extend(words.get(from).map(|word| word.place.start..end));
    };
    match texts[..] {
        ["dynamic-cookie-key", ..] => rest(1),
        ["stats", "auth", ..] => rest(2),
        ["setenv" | "presetenv", name, ..] if is_name_of_secret(name) => rest(2),
        ["user", _, "password" | "insecure-password", ..] => {
            found.extend(words.get(3).map(|word| word.place.clone()));
        }
        ["tcp-check", "send" | "send-lf", sent, ..] => {
            let sent = sent.to_ascii_uppercase();
            if ["AUTH ", "PASS ", "LOGIN ", HIDDEN].iter().any(|word| sent.contains(word)) {
                found.extend(words.get(2).map(|word| word.place.clone()));
            }
        }
        _ => {}
    }
}

/// Values of headers and variables with a telling name.
fn by_names(words: &[Word], found: &mut Vec<Range<usize>>) {
    for (at, word) in words.iter().enumerate() {
        let value = |from: usize| words.get(from).filter(|it| !is_read_from_request(&it.text));
        let names_secret = |at: usize| words.get(at).is_some_and(|it| is_name_of_secret(&it.text));
        match word.text.as_str() {
            "set-header" | "add-header" | "early-hint" | "hdr" if names_secret(at + 1) => {
                found.extend(value(at + 2).map(|word| word.place.clone()));
            }
            "replace-header" | "replace-value" if names_secret(at + 1) => {
                let both = [value(at + 2), value(at + 3)].into_iter().flatten();
                found.extend(both.map(|word| word.place.clone()));
            }
            text if text.starts_with("set-var-fmt(") && has_name_of_secret(text) => {
                found.extend(value(at + 1).map(|word| word.place.clone()));
            }
            text if text.starts_with("set-var(") && has_name_of_secret(text) => {
                let constant =
                    words.get(at + 1).filter(|it| it.text.contains("str(") || it.text == HIDDEN);
                found.extend(constant.map(|word| word.place.clone()));
            }
            _ => {}
        }
    }
}

/// Whether a value is no more than what a request or connection says.
fn is_read_from_request(text: &str) -> bool {
    let is_one = text.starts_with("%[") && text.ends_with(']') && text.matches("%[").count() == 1;
    is_one && !text.contains("str(")
}

/// Whether an expression has an argument that names a secret: `req.hdr(authorization)`.
fn has_name_of_secret(expression: &str) -> bool {
    let arguments = expression.split('(').skip(1);
    arguments.filter_map(|rest| rest.split([',', ')']).next()).any(is_name_of_secret)
}

/// What secrets are compared with.
fn by_criteria(words: &[Word], found: &mut Vec<Range<usize>>) {
    for (at, word) in words.iter().enumerate() {
        let is_named = at == 2 && words[0].text == "acl";
        let is_anonymous =
            at.checked_sub(1).is_some_and(|at| matches!(&*words[at].text, "{" | "!{"));
        let is_secret = has_name_of_secret(&word.text)
            || word.text.starts_with("http_auth_pass")
            || word.text.starts_with("http_auth_bearer");
        if !(is_named || is_anonymous) || !is_secret {
            continue;
        }
        let mut patterns = words[at + 1..].iter();
        while let Some(pattern) = patterns.next().filter(|pattern| pattern.text != "}") {
            match pattern.text.as_str() {
                "-m" | "-f" | "-M" => drop(patterns.next()),
                flag if flag.starts_with('-') && flag.len() == 2 => {}
                _ => found.push(pattern.place.clone()),
            }
        }
    }
}

/// What looks like a secret wherever it stands.
fn by_looks(line: &str, words: &[Word], found: &mut Vec<Range<usize>>) {
    let lower = line.to_ascii_lowercase();
    let after = |mark: &'static str| {
        lower.match_indices(mark).map(move |(at, _)| at + mark.len()).collect::<Vec<_>>()
    };
    let until = |from: usize, ends: &str| {
        let rest = &line[from..];
        from + rest.find(|it: char| it.is_whitespace() || ends.contains(it)).unwrap_or(rest.len())
    };
    for start in after("://") {
        let authority = &line[start..until(start, "/?#\"'\\")];
        found.extend(authority.rfind('@').map(|at| start..start + at));
    }
    for start in PARAMETERS.into_iter().flat_map(after) {
        if !line[start..].starts_with("%[") {
            found.push(start..until(start, "&;,)]}\"'\\"));
        }
    }
    for (converter, before) in KEYED {
        for start in after(converter) {
            let key = key_among(line, start..until(start, ")\"'"), before);
            found.extend(key.filter(|it| !is_elsewhere(&line[it.clone()], converter)));
        }
    }
    for start in ["authorization:", "x-api-key:", "x-auth-token:"].into_iter().flat_map(after) {
        let start = start + blanks(&line[start..]);
        let word = words.iter().find(|word| word.place.contains(&start));
        let end = word.map_or(start, |word| word.place.end);
        let breaks = ["\\r", "\\n", "\"", "'"].iter().filter_map(|it| line[start..end].find(it));
        found.push(start..breaks.min().map_or(end, |at| start + at));
    }
    for (scheme, is_credential) in
        [("bearer", is_token as fn(&str) -> bool), ("basic", is_user_and_password)]
    {
        for start in after(scheme) {
            let is_word = !lower[..start - scheme.len()].ends_with(|it: char| it.is_alphanumeric());
            let blanks = blanks(&line[start..]);
            let (start, end) = (start + blanks, until(start + blanks, "\\\"',;)}"));
            if is_word && blanks > 0 && is_credential(&line[start..end]) {
                found.push(start..end);
            }
        }
    }
}

/// Where the key among these arguments is, behind so many others.
fn key_among(line: &str, arguments: Range<usize>, before: usize) -> Option<Range<usize>> {
    let mut arguments = line[arguments.clone()].split(',').scan(arguments.start, |at, argument| {
        let start = std::mem::replace(at, *at + argument.len() + 1);
        Some(start..start + argument.len())
    });
    arguments.nth(before)
}

/// Whether a variable has the key of this converter, or a file, of which only one converter takes
/// the path: what the others take in Base64 may begin like a path.
fn is_elsewhere(key: &str, converter: &str) -> bool {
    let variables = ["proc.", "sess.", "txn.", "req.", "res."];
    variables.iter().any(|it| key.starts_with(it))
        || (converter == "jwt_verify(" && key.starts_with('/'))
}

/// How many bytes of blanks, also of those with a backslash, a text begins with.
fn blanks(text: &str) -> usize {
    let mut rest = text;
    while let Some(shorter) = rest.strip_prefix([' ', '\t']).or_else(|| rest.strip_prefix("\\ ")) {
        rest = shorter;
    }
    text.len() - rest.len()
}

fn is_token(text: &str) -> bool {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._~+/=".contains(it);
    text == HIDDEN || (text.len() >= 8 && text.chars().all(is_plain))
}

fn is_user_and_password(text: &str) -> bool {
    text == HIDDEN || STANDARD.decode(text).is_ok_and(|decoded| decoded.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_a_line_has_them() {
        for (line, shown) in [
            ("    stats auth admin:pass word", "    stats auth ***"),
            ("user ann password $5$x groups g1", "user ann password *** groups g1"),
            ("dynamic-cookie-key 'k e y'", "dynamic-cookie-key ***"),
            (
                r#"http-request set-header Authorization "Basic YTpi" if { path /x }"#,
                "http-request set-header Authorization *** if { path /x }",
            ),
            ("http-request add-header X-Api-Key k1", "http-request add-header X-Api-Key ***"),
            (
                "http-request set-header X-Backend-Auth k1",
                "http-request set-header X-Backend-Auth ***",
            ),
            ("http-request set-header X-Vault-Key k1", "http-request set-header X-Vault-Key ***"),
            (
                "http-response set-header Set-Cookie id=k1",
                "http-response set-header Set-Cookie ***",
            ),
            (
                "http-request set-header X-Enc %[path,aes_gcm_enc(128,txn.n,U0VL,txn.t),base64]",
                "http-request set-header X-Enc %[path,aes_gcm_enc(128,txn.n,***,txn.t),base64]",
            ),
            (
                "http-request replace-header Authorization (.*) x\\1",
                "http-request replace-header Authorization *** ***",
            ),
            ("http-request set-var(txn.token) str(abc)", "http-request set-var(txn.token) ***"),
            (
                "http-check send meth GET uri /h hdr Authorization 'Bearer x' hdr Host a",
                "http-check send meth GET uri /h hdr Authorization *** hdr Host a",
            ),
            (
                r"option httpchk GET / HTTP/1.1\r\nAuthorization:\ Basic\ YTpi\r\nHost:\ a",
                r"option httpchk GET / HTTP/1.1\r\nAuthorization:\ ***\r\nHost:\ a",
            ),
            ("tcp-check send \"AUTH pw\\r\\n\"", "tcp-check send ***"),
            (
                "acl ok req.hdr(authorization) -m str -i 'Bearer 1' two",
                "acl ok req.hdr(authorization) -m str -i *** ***",
            ),
            (
                "http-request deny if !{ http_auth_bearer -m str abc } or { src 10.0.0.1 }",
                "http-request deny if !{ http_auth_bearer -m str *** } or { src 10.0.0.1 }",
            ),
            (
                "http-request set-header X-Up 'Bearer abcdefgh'",
                "http-request set-header X-Up 'Bearer ***'",
            ),
            (
                "http-request redirect location https://u:p@h/x",
                "http-request redirect location https://***@h/x",
            ),
            (
                "http-request set-query a=1&access_token=abc&b=2",
                "http-request set-query a=1&access_token=***&b=2",
            ),
            (
                "http-request set-var(txn.sum) req.body,hmac(sha256,a2V5),hex",
                "http-request set-var(txn.sum) req.body,hmac(sha256,***),hex",
            ),
            (
                "http-request set-header X-Enc %[path,aes_gcm_enc(128,txn.n,/0VL,txn.t),base64]",
                "http-request set-header X-Enc %[path,aes_gcm_enc(128,txn.n,***,txn.t),base64]",
            ),
            (
                "http-request set-header X-Dec %[path,b64dec,aes_cbc_dec(128,txn.n,/0VL)]",
                "http-request set-header X-Dec %[path,b64dec,aes_cbc_dec(128,txn.n,***)]",
            ),
            (
                "http-request set-var(txn.sum) req.body,hmac(sha256,/2V5),hex",
                "http-request set-var(txn.sum) req.body,hmac(sha256,***),hex",
            ),
            (
                "http-request set-var(txn.jwt) req.body,jwt_decrypt_secret(/2V5)",
                "http-request set-var(txn.jwt) req.body,jwt_decrypt_secret(***)",
            ),
            ("setenv DB_PASSWORD geheim", "setenv DB_PASSWORD ***"),
        ] {
            assert_eq!(masked(line).as_deref(), Some(shown), "{line}");
            assert_eq!(masked(shown).as_deref(), Some(shown), "what is hidden stays so");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for line in [
            "http-request set-header Authorization %[req.hdr(X-Auth-Of)]",
            "http-request auth realm Site unless { http_auth(users) }",
            "acl has req.hdr(authorization) -m found",
            "description Basic site of the bearer network",
            "http-request set-header X-Forwarded-Proto https",
            "server a unix@/run/a.sock check",
            "redirect prefix https://www.example.test code 301",
            "use_backend app if { req.hdr(host) -m str a.test }",
            "timeout client 30s",
            "http-request deny unless { req.body,jwt_verify(txn.alg,/etc/jwt.pem) -m int 1 }",
            "http-request set-var(txn.sum) req.body,hmac(sha256,txn.key),hex",
            "",
            "\"",
        ] {
            assert_eq!(masked(line), None, "{line}");
        }
    }
}

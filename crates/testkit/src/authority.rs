//! A certificate authority of the tests, made by OpenSSL. Puppet's own is like it, and can be made
//! of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run;

/// The authority itself: a certificate, its key, and an empty list of revoked certificates.
const AUTHORITY: &str = r#"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=Puppet CA: test' \
  -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:true \
  -addext keyUsage=critical,keyCertSign,cRLSign
cat >ca.cnf <<'CONFIGURATION'
[ca]
default_ca = this
[this]
database = revoked
crlnumber = number
default_md = sha256
default_crl_days = 3650
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid:always
CONFIGURATION
: >revoked
echo 00 >number
"#;

/// Of `$1`, for a server on loopback and for a client.
const ISSUE: &str = r#"
openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=%s\n' \
  "$1" serverAuth,clientAuth >"$1.ext"
openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
  -extfile "$1.ext" -out "$1.pem"
cat "$1.pem" "$1.key" >"$1.both.pem"
"#;

const SELF_SIGNED: &str = r#"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem"
"#;

const REVOKE: &str = r#"openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke "$1.pem""#;

const LIST_REVOKED: &str =
    "openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -gencrl -out crl.pem";

/// An authority in a folder that its owner removes.
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub fn create(folder: &Path) -> Self {
        let authority = Self { folder: folder.to_owned() };
        authority.shell(AUTHORITY, "");
        authority.shell(LIST_REVOKED, "");
        authority
    }

    /// Signs a certificate of that name, which is good for 127.0.0.1 too.
    pub fn issue(&self, name: &str) {
        self.shell(ISSUE, name);
    }

    /// A certificate of that name that this authority has not signed.
    pub fn self_signed(&self, name: &str) {
        self.shell(SELF_SIGNED, name);
    }

    /// Puts a certificate on the list of revoked ones.
    pub fn revoke(&self, name: &str) {
        self.shell(REVOKE, name);
        self.shell(LIST_REVOKED, "");
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    pub fn ca_key(&self) -> PathBuf {
        self.file("ca.key")
    }

    /// The list of revoked certificates.
    pub fn crl(&self) -> PathBuf {
        self.file("crl.pem")
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.pem"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.key"))
    }

    /// Certificate and key in one file, as HAProxy has them.
    pub fn both(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.both.pem"))
    }

    fn file(&self, name: &str) -> PathBuf {
        let file = self.folder.join(name);
        assert!(fs::exists(&file).is_ok_and(|there| there), "no {}", file.display());
        file
    }

    fn shell(&self, script: &str, name: &str) {
        let folder = self.folder.to_str().expect("a folder named in UTF-8");
        let script = format!("set -e; cd \"$2\"; {{\n{script}\n}} 2>&1");
        run("sh", &["-c", &script, "authority", name, folder]);
    }
}

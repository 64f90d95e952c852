//! What stands on disk: the API's token and certificate, the map file, certificates, the store.

use std::path::Path;

use jiff::Timestamp;

use super::{Finding, finding, warning};
use crate::api::Token;
use crate::api::access::ServerTls;
use crate::api::access::tls::is_of_ca;
use crate::cli::output::pluralize;
use crate::cli::remote::{OF_A_CA, OTHERWISE, certificate};
use crate::settings::{self, Settings};
use crate::store::map_file::MapFileWriter;
use crate::store::{StoreError, Stored};
use crate::supervise::files::probe_folder;
use crate::tls::acme::Authority;
use crate::tls_file::TlsFile;

/// The API's own files.
pub(super) fn check_api(settings: &Settings) -> impl Iterator<Item = Finding> {
    [check_token(settings), check_api_tls(settings), check_api_certificate(settings)]
        .into_iter()
        .flatten()
}

/// Of what `openssl req -x509` makes unless it is told otherwise. Others take it, so it is no
/// failure.
fn check_api_certificate(settings: &Settings) -> Option<Finding> {
    let certificate = certificate(&settings.api.tls.as_ref()?.cert).ok()?;
    let text = format!("{OF_A_CA}; `curl` takes it, the verbs of `mapsmith` do not: {OTHERWISE}");
    is_of_ca(&certificate).then(|| warning("api.tls", text))
}

fn check_token(settings: &Settings) -> Option<Finding> {
    let path = settings.api.token_file.as_ref()?;
    let read = Token::read(path).map(|token| match token.weakness(path) {
        Some(weakness) => format!("readable, but {weakness}"),
        None => "readable".to_owned(),
    });
    let read = read.map_err(|error| error.trim_start_matches("api.token_file ").to_owned());
    Some(finding("api.token_file", read))
}

/// What connections would be made with now.
fn check_api_tls(settings: &Settings) -> Option<Finding> {
    let tls = ServerTls::new(settings.api.tls.as_ref()?);
    let result = tls.and_then(|tls| match tls.report().not_after {
        Some(end) if end <= Timestamp::now() => Err(format!("the certificate is over since {end}")),
        Some(end) => Ok(format!("the certificate is good until {end}")),
        None => Ok("can be used".to_owned()),
    });
    Some(finding("api.tls", result))
}

pub(super) fn check_map_file(settings: &Settings) -> Finding {
    let mut writer = MapFileWriter::new(settings.map.file());
    let path = settings.map.file().display();
    // As `mapsmith run` makes it.
    let unmade = settings.map.file().parent().filter(|folder| !folder.exists());
    let unmade = unmade.filter(|_| settings.own_instance().is_some());
    let writable = match unmade {
        Some(folder) => probe_folder(folder).map_err(|error| error.to_string()),
        None => writer.probe().map_err(|error| error.to_string()),
    };
    let result = match (writable, writer.peek().map_err(|error| error.to_string())) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(()), Ok(None)) if settings.own_instance().is_some() => {
            Ok(format!("{path} does not exist yet and will be created"))
        }
        (Ok(()), Ok(None)) => Err(format!(
            "{path} does not exist: HAProxy does not start without it; create it, empty"
        )),
        (Ok(()), Ok(Some(file))) => match file.rejected.first() {
            None => Ok(format!(
                "{path}: {} in force, can be replaced",
                pluralize(file.entries.len(), "entry")
            )),
            Some((line, reason)) => Err(format!(
                "{path}: lines that are not entries will be dropped at the first write: {}, the \
                    first is line {line}: {reason}",
                pluralize(file.rejected.len(), "line")
            )),
        },
    };
    finding("map file", result)
}

/// What the daemon would put into the file now.
pub(super) async fn check_tls_file(settings: &Settings, file: &settings::TlsFile) -> Finding {
    let from = Path::new(&file.from);
    let mut certificates = settings.certificates.iter();
    let is_own = certificates.any(|certificate| certificate.issued.as_deref() == Some(from));
    let result = match TlsFile::new(file) {
        Ok(_) if is_own && !from.exists() => {
            Ok("nothing was issued yet; Mapsmith begins with a self-signed certificate".to_owned())
        }
        Ok((mut task, _)) => task.preview(Timestamp::now()).await.map(|held| held.join("; ")),
        Err(error) => Err(error.to_string()),
    };
    finding(format!("tls_file {}", file.path.display()), result)
}

/// Whether the authority of the settings could be asked; nothing where no certificate is its.
pub(super) fn check_acme(settings: &Settings) -> Option<Finding> {
    let (acme, certificates) = settings.acme_certificates()?;
    let checked = Authority::new(acme.clone(), settings.acme_folder(), None).check();
    let count = pluralize(certificates.len(), "certificate");
    let detail = || format!("{count} from {}, by {}", acme.directory, acme.challenge);
    Some(finding("acme", checked.map(|()| detail())))
}

/// How much the store has, where the settings name one.
pub(super) fn check_store(
    settings: &Settings,
    stored: &Result<Stored, StoreError>,
) -> Option<Finding> {
    settings.store.as_ref()?;
    let count = |Stored { overrides, .. }: &Stored| {
        let pins = pluralize(overrides.pins().len(), "pin");
        let blocked = match overrides.blocked().len() {
            0 => String::new(),
            blocked => format!(", {blocked} blocked"),
        };
        format!("{pins}{blocked}, {} drained", overrides.drained().len())
    };
    Some(finding("store", stored.as_ref().map(count).map_err(ToString::to_string)))
}

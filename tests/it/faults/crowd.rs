//! Others who want something: clients of Mapsmith's API, and a second Mapsmith.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::daemon::MOST_FILES;
use super::registry::Reply;
use super::run::moves;
use super::site::{NODES, Outcome, Whole};
use crate::support::mapsmith::Mapsmith;
use crate::support::poll;
use crate::support::random::Random;

/// Within this the API answers somebody who asks properly, whoever else holds connections to it.
const ANSWERED: Duration = Duration::from_secs(60);

/// Within this a Mapsmith knows whose map file it is.
const SAID: Duration = Duration::from_secs(60);

/// Of a connection that the daemon takes no more.
const CONNECTED: Duration = Duration::from_secs(2);

/// Clients send half a request and wait. Routing goes on all the same, and a whole request is
/// answered before they leave.
pub fn half_requests(whole: &mut Whole, random: &mut Random, clients: usize) -> Outcome {
    let open = || {
        let mut stream = TcpStream::connect_timeout(&whole.mapsmith.address(), CONNECTED).ok()?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: mapsmith\r\nX-Never-").ok()?;
        Some(stream)
    };
    let crowd: Vec<TcpStream> = (0..clients).filter_map(|_| open()).collect();
    whole.journal.note(&format!("  {} connections with half a request", crowd.len()));
    moves(whole, random);
    whole.nudge_by_signal();
    let expected = whole.expected();
    whole.holds(&expected).map_err(|error| {
        format!("among {} half requests routing stands still: {error}", crowd.len())
    })?;
    let answered = poll(ANSWERED, || {
        whole
            .mapsmith
            .try_ask("GET", "/healthz")
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
    drop(crowd);
    answered.ok_or_else(|| {
        format!("among {clients} half requests the API answers nobody within {ANSWERED:?}")
    })
}

/// A second Mapsmith, whose registries say something else, is started beside the first: it changes
/// nothing and says whose map file it is. With `takes_over`, and the same registries, it is the
/// first that changes nothing any more, until the second is gone.
pub fn second_mapsmith(whole: &mut Whole, random: &mut Random, takes_over: bool) -> Outcome {
    let documents = if takes_over { NODES } else { "others" };
    for source in 0..whole.site.sources {
        let mut document = whole.document(source);
        let (names, nodes) = (whole.master_names(), document.len());
        // Few enough for any guard, and to masters that may never answer for them.
        for (_, master) in document.iter_mut().take((nodes / 20).max(1)) {
            let other = names.iter().find(|name| master.as_str() != Some(name)).cloned();
            *master = other.into();
        }
        whole.registries.answers(
            &format!("others{source}"),
            Reply::Whole(200, serde_json::Value::Object(document).to_string()),
        );
    }
    let config =
        Mapsmith::config(&whole.second_settings(documents)).open_files(MOST_FILES, MOST_FILES);
    let mut second = if takes_over { config.argument("--take-over") } else { config }.start();
    let is_read_only = |mapsmith: &Mapsmith| {
        mapsmith.get("/v1/status").1["read_only"].is_string() && mapsmith.get("/readyz").0 == 503
    };
    let who = if takes_over { &whole.mapsmith } else { &second };
    if poll(SAID, || is_read_only(who).then_some(())).is_none() {
        return Err(format!(
            "of two Mapsmiths none is read-only: {}\n{}",
            who.get("/v1/status").1,
            second.log()
        ));
    }
    whole.journal.note("  one of two is read-only");
    moves(whole, random);
    whole.nudge();
    second.post("/v1/reload");
    let expected = whole.expected();
    whole
        .holds(&expected)
        .map_err(|error| format!("beside a second Mapsmith: {error}\n{}", second.log()))?;
    if !takes_over && !is_read_only(&second) {
        return Err(format!("the second Mapsmith is read-only no more:\n{}", second.log()));
    }
    second.kill();
    Ok(())
}

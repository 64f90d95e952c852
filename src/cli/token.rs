//! `mapsmith token`: who may ask the API.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use mapsmith_core::access::{Grant, Role};
use reqwest::Method;

use super::remote::{Connection, NOTHING};
use super::{OutputFormat, SUCCESS, output, print};
use crate::api::types::{CreateTokenRequest, NewTokenReport, TokenReport, TokensReport};

#[derive(Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token and print it. It is shown this once
    Create {
        /// For whom it is, as logs and the audit show it
        name: String,
        /// What it may do: viewer (read), operator (also reload, pin, drain, approve), admin
        /// (everything), or none for its grants alone
        #[arg(long)]
        role: Role,
        /// What it may do beside: node:MASTER, register:PREFIX, commands or commands:NAME; may be
        /// given several times
        #[arg(long = "grant", value_name = "GRANT")]
        grants: Vec<Grant>,
        /// How long it is good; without it until it is revoked
        #[arg(long = "for", value_name = "DURATION", value_parser = super::length)]
        length: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show all tokens, also for 90 days those that are over
    List(Connection),
    /// End a token now, with the sessions that were begun with it
    Revoke {
        /// The id that `token list` shows
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Give a token another secret and print it. The one of before is good for another hour
    Rotate {
        /// The id that `token list` shows
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

impl TokenVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::List(connection)
            | Self::Create { connection, .. }
            | Self::Revoke { connection, .. }
            | Self::Rotate { connection, .. } => connection,
        }
    }
}

pub(super) async fn token(verb: TokenVerb, format: OutputFormat) -> anyhow::Result<u8> {
    match verb {
        TokenVerb::Create { name, role, grants, length, connection } => {
            let request = CreateTokenRequest { name, role, grants, duration: length };
            let path = ["v1", "tokens"];
            let body = Some(&request);
            let asked = connection.ask(Method::POST, &path, None, body, Duration::ZERO).await?;
            show_new(&asked.good()?, format)?;
        }
        TokenVerb::List(connection) => {
            let tokens: TokensReport = connection.get(&["v1", "tokens"]).await?;
            print(format, &tokens, |tokens| table(&tokens.items))?;
        }
        TokenVerb::Revoke { id, connection } => {
            let path = ["v1", "tokens", &id];
            let asked =
                connection.ask(Method::DELETE, &path, None, NOTHING, Duration::ZERO).await?;
            let revoked: TokenReport = asked.good()?;
            print(format, &revoked, |token| {
                format!("token {} ({}) is revoked", token.name, token.id)
            })?;
        }
        TokenVerb::Rotate { id, connection } => {
            let path = ["v1", "tokens", &id, "rotate"];
            let asked = connection.ask(Method::POST, &path, None, NOTHING, Duration::ZERO).await?;
            show_new(&asked.good()?, format)?;
        }
    }
    Ok(SUCCESS)
}

/// The token alone goes to standard output, so that a script can keep it.
fn show_new(new: &NewTokenReport, format: OutputFormat) -> anyhow::Result<()> {
    print(format, new, |new| new.token.clone())?;
    if format == OutputFormat::Text {
        let TokenReport { id, name, role, .. } = &new.about;
        let until = until(new.about.expires_at);
        output::error_line(&format!("token {name} ({id}), {role}, {until}; it is shown this once"));
    }
    Ok(())
}

fn until(end: Option<Timestamp>) -> String {
    end.map_or("good until it is revoked".to_owned(), |end| format!("good until {end:.0}"))
}

fn table(tokens: &[TokenReport]) -> String {
    if tokens.is_empty() {
        return "there are no tokens".to_owned();
    }
    let mut text = String::new();
    for token in tokens {
        let TokenReport { id, name, role, grants, created_by, .. } = token;
        let grants: String = grants.iter().map(|grant| format!(" {grant}")).collect();
        let standing = match (token.revoked_at, token.valid) {
            (Some(at), _) => format!("revoked {at:.0}"),
            (None, false) => {
                token.expires_at.map_or_else(String::new, |at| format!("over {at:.0}"))
            }
            (None, true) => until(token.expires_at),
        };
        let used = token.last_used_at.map_or("never used".to_owned(), |at| format!("used {at:.0}"));
        let _ = writeln!(text, "{id}  {name}  {role}{grants}  {standing}, {used}, by {created_by}");
    }
    text
}

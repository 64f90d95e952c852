//! Tokens as the store has them: a row a token, without its secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::access::token::SecretHash;
use mapsmith_core::access::{Grant, StoredToken};
use mapsmith_core::events::{EventKind, Happening};
use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::{SqliteStore, StoreErrorKind, audit, events, time};
use crate::store::{AuditTicket, StoreError};

impl SqliteStore {
    /// All that can be read, by id. One that can't admits nobody.
    pub async fn tokens(&self) -> Result<BTreeMap<String, StoredToken>, StoreError> {
        self.read(|connection| read(connection)).await
    }

    /// Keeps a token for good in place of the one of its id, with who asked for that.
    pub async fn keep_token(
        &self,
        token: StoredToken,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError> {
        self.with(move |connection| write(connection, &token, ticket.as_deref())).await?;
        self.kept_events.send_replace(());
        Ok(())
    }

    /// Notes when tokens were used last.
    pub async fn note_used(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for (id, at) in used {
                let at = at.as_millisecond();
                transaction
                    .execute("UPDATE tokens SET used = ?2 WHERE id = ?1", params![id, at])?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Forgets tokens that ended before this.
    pub async fn forget_tokens(&self, before: Timestamp) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM tokens WHERE expires < ?1 OR revoked < ?1";
        self.with(move |connection| {
            connection.execute(FORGET, [before.as_millisecond()])?;
            Ok(())
        })
        .await
    }
}

fn read(connection: &Connection) -> Result<BTreeMap<String, StoredToken>, StoreErrorKind> {
    const READ: &str = "SELECT id, name, role, grants, hash, previous, previous_until, created_by, \
        created, expires, used, revoked FROM tokens";
    let mut statement = connection.prepare(READ)?;
    let mut rows = statement.query([])?;
    let mut tokens = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        match token_of(row, id.clone()) {
            Ok(token) => _ = tokens.insert(id, token),
            Err(reason) => tracing::error!(
                id,
                "a token of the store can't be read and admits nobody; make another one: {reason}"
            ),
        }
    }
    Ok(tokens)
}

fn token_of(row: &Row<'_>, id: String) -> Result<StoredToken, String> {
    fn text<E: ToString>(error: E) -> String {
        error.to_string()
    }
    let at = |column| -> Result<Option<Timestamp>, String> {
        let at: Option<i64> = row.get(column).map_err(text)?;
        at.map(time).transpose().map_err(text)
    };
    let hash = |column| row.get::<_, Option<SecretHash>>(column).map_err(text);
    let (role, grants): (String, String) = (row.get(2).map_err(text)?, row.get(3).map_err(text)?);
    let grants = grants.split(',').filter(|grant| !grant.is_empty()).map(str::parse::<Grant>);
    Ok(StoredToken {
        id,
        name: row.get(1).map_err(text)?,
        role: role.parse().map_err(text)?,
        grants: grants.collect::<Result<_, _>>().map_err(text)?,
        hash: hash(4)?.ok_or("it has no hash")?,
        previous: hash(5)?.zip(at(6)?),
        created_by: row.get(7).map_err(text)?,
        created_at: at(8)?.unwrap_or_default(),
        expires_at: at(9)?,
        last_used_at: at(10)?,
        revoked_at: at(11)?,
    })
}

fn write(
    connection: &mut Connection,
    token: &StoredToken,
    ticket: Option<&AuditTicket>,
) -> Result<(), StoreErrorKind> {
    const KEEP: &str = "INSERT OR REPLACE INTO tokens (id, name, role, grants, hash, previous, \
        previous_until, created_by, created, expires, used, revoked) VALUES (?1, ?2, ?3, ?4, ?5, \
        ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let milliseconds = |at: Option<Timestamp>| at.map(|at| at.as_millisecond());
    let grants: Vec<_> = token.grants.iter().map(Grant::to_string).collect();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        KEEP,
        params![
            token.id,
            token.name,
            token.role.name(),
            grants.join(","),
            token.hash,
            token.previous.map(|(hash, _)| hash),
            token.previous.map(|(_, until)| until.as_millisecond()),
            token.created_by,
            token.created_at.as_millisecond(),
            milliseconds(token.expires_at),
            milliseconds(token.last_used_at),
            milliseconds(token.revoked_at)
        ],
    )?;
    events::insert(&transaction, &happening(token, ticket))?;
    audit::commit(transaction, ticket, Some(format!("tokens/{}", token.id)))
}

/// What has become of a token, for those who follow. Its name is theirs, not its secret.
fn happening(token: &StoredToken, ticket: Option<&AuditTicket>) -> Happening {
    let (state, at) = match (token.revoked_at, token.previous) {
        (Some(at), _) => ("revoked", Some(at)),
        (None, Some(_)) => ("rotated", None),
        (None, None) => ("created", Some(token.created_at)),
    };
    let asked = ticket.map(AuditTicket::request);
    let at = at.or(asked.as_ref().map(|asked| asked.at)).unwrap_or(token.created_at);
    let text = format!("the token {} of {} was {state}", token.id, token.name);
    let happening = Happening::new(at, EventKind::Token, &token.id, text).in_state(state);
    match asked {
        Some(asked) => {
            happening.asked(Some(asked.actor.name), asked.reason, Some(asked.request_id))
        }
        None => happening,
    }
}

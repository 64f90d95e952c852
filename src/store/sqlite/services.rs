//! Services as the store has them: each one's text, as HAProxy had it last.

use jiff::Timestamp;
use mapsmith_core::ServiceForms;
use rusqlite::{Connection, TransactionBehavior, params};

use super::StoreErrorKind;
use crate::store::StoredServices;

/// Those that were kept last; none where there are none.
pub(super) fn read(connection: &Connection) -> Result<Option<StoredServices>, StoreErrorKind> {
    let mut statement = connection.prepare("SELECT name, text, since, origin FROM services")?;
    let mut rows = statement.query([])?;
    let mut stored = StoredServices::default();
    while let Some(row) = rows.next()? {
        stored.forms.insert(row.get(0)?, row.get(1)?);
        stored.origin = row.get(3)?;
        let since = super::time(row.get(2)?).ok();
        stored.since = stored.since.max(since);
    }
    Ok((!stored.forms.is_empty()).then_some(stored))
}

/// Keeps these in place of those before.
pub(super) fn write(
    connection: &mut Connection,
    origin: &str,
    forms: &ServiceForms,
) -> Result<(), StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM services", [])?;
    let now = Timestamp::now().as_millisecond();
    {
        let mut insert = transaction
            .prepare("INSERT INTO services (name, origin, text, since) VALUES (?1, ?2, ?3, ?4)")?;
        for (name, text) in forms {
            insert.execute(params![name, origin, text, now])?;
        }
    }
    Ok(transaction.commit()?)
}

//! What is said of rows that HAProxy's map refuses: between the decision, which must not write them
//! to the map file, and the instances, whose HAProxys alone can tell.
//!
//! A map takes any row (`map_str`), or some only (`map_ip`, `map_reg`, `map_str_int`, ...). HAProxy
//! does not start from a file with a row that its map refuses. So an instance tells which kind its
//! map is, once a process; of the second kind it is asked for each new or changed row before that
//! is written. What it refuses all the same when a revision is applied, it tells too.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

/// A row that a HAProxy refuses, and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The node.
    pub node: String,
    /// Its master.
    pub master: String,
    /// HAProxy's words.
    pub reason: String,
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{} {}` ({})", self.node, self.master, self.reason)
    }
}

/// What an instance tells about the rows of its map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowFacts {
    /// The first try to observe it is over, whatever came of it.
    pub tried: bool,
    /// It answered when it was last observed.
    pub answers: bool,
    /// Grows with each process that answers.
    pub process: u64,
    /// What its map's rows must be, where not any will do; kept while it does not answer.
    pub restricted: Option<String>,
    /// Rows of the wanted map that this process refused when they were to be applied.
    pub refused: Arc<[RefusedRow]>,
}

/// Asks an instance which of these rows its HAProxy refuses.
#[derive(Debug)]
pub struct RowQuestion {
    /// Nodes and masters.
    pub rows: Arc<[(String, String)]>,
    /// Gets the position of each refused row, and HAProxy's words.
    pub answer: oneshot::Sender<Vec<(usize, String)>>,
}

/// The decision's end: one instance.
#[derive(Debug)]
pub struct RowScreen {
    /// The instance's name.
    pub name: String,
    /// What it tells.
    pub facts: watch::Receiver<RowFacts>,
    /// Takes questions; one at a time is asked.
    pub questions: mpsc::Sender<RowQuestion>,
}

/// The instance's end.
#[derive(Debug)]
pub struct InstanceRows {
    facts: watch::Sender<RowFacts>,
    questions: mpsc::Receiver<RowQuestion>,
    /// Whether the process that answers has told its map's kind.
    known: bool,
}

/// Both ends, of the instance of this name.
pub fn channel(name: &str) -> (RowScreen, InstanceRows) {
    let (facts, told) = watch::channel(RowFacts::default());
    let (questions, asked) = mpsc::channel(1);
    (
        RowScreen { name: name.to_owned(), facts: told, questions },
        InstanceRows { facts, questions: asked, known: false },
    )
}

impl InstanceRows {
    /// The next question.
    pub async fn question(&mut self) -> Option<RowQuestion> {
        self.questions.recv().await
    }

    /// Whether the map's kind is to be learned.
    pub fn must_learn(&self) -> bool {
        !self.known
    }

    /// Another process answers from now on.
    pub fn forget(&mut self) {
        self.known = false;
    }

    /// The process answered, and its map is of this kind: restricted to such rows, or none.
    pub fn learned(&mut self, restricted: Option<String>) {
        self.known = true;
        self.facts.send_modify(|facts| {
            *facts = RowFacts {
                tried: true,
                answers: true,
                process: facts.process + 1,
                restricted,
                refused: Arc::new([]),
            };
        });
    }

    /// The process answers.
    pub fn answers(&self) {
        self.tell(|facts| facts.answers = true);
    }

    /// A pass failed. Of a map that takes any row nobody is asked, so there it is no news whether
    /// the process answers.
    pub fn failed(&self, unreachable: bool) {
        self.tell(|facts| {
            facts.tried = true;
            facts.answers &= !unreachable || facts.restricted.is_none();
        });
    }

    /// The process refused these rows.
    pub fn refuses(&self, rows: &[RefusedRow]) {
        self.tell(|facts| {
            if *facts.refused != *rows {
                facts.refused = rows.into();
            }
        });
    }

    fn tell(&self, change: impl FnOnce(&mut RowFacts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }
}

//! The names of `turso` that `cubecl-environment` uses, without a database.
//!
//! burn-omni keeps compiled kernels in files of its own, so no database is ever opened: [`Builder::build`] fails and says so,
//! and the types that only an open database gives cannot be made.

use std::convert::Infallible;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Deref;
use std::time::Duration;

/// Why nothing was opened.
#[derive(Clone, Debug)]
pub enum Error {
    /// What is wrong.
    Error(String),
    /// Another process holds the file.
    Busy(String),
    /// Another process wrote meanwhile.
    BusySnapshot(String),
    /// The system refused.
    IoError(ErrorKind, &'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(what) | Self::Busy(what) | Self::BusySnapshot(what) => f.write_str(what),
            Self::IoError(kind, doing) => write!(f, "{doing}: {kind}"),
        }
    }
}

impl std::error::Error for Error {}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// Ways to start a transaction.
pub mod transaction {
    /// When the writer is taken.
    #[derive(Clone, Copy, Debug)]
    pub enum TransactionBehavior {
        /// At the first write.
        Deferred,
        /// At once.
        Immediate,
    }
}

/// What would open a database.
#[derive(Debug)]
pub struct Builder;

impl Builder {
    /// The database at `path`.
    #[must_use]
    pub fn new_local(_path: &str) -> Self {
        Self
    }

    /// Whether several processes share it.
    #[must_use]
    pub fn experimental_multiprocess_wal(self, _shared: bool) -> Self {
        self
    }

    /// Whether `VACUUM` is understood.
    #[must_use]
    pub fn experimental_vacuum(self, _understood: bool) -> Self {
        self
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn read_only(self, _read_only: bool) -> Self {
        self
    }

    /// Opens nothing.
    ///
    /// # Errors
    ///
    /// Always: there is no database in this program.
    pub async fn build(self) -> Result<Database> {
        Err(Error::Error(
            "this program was built without a database; burn-omni keeps kernels in files of its own".into(),
        ))
    }
}

/// A database; there is none.
#[derive(Clone, Debug)]
pub struct Database(Infallible);

impl Database {
    /// A connection.
    ///
    /// # Errors
    ///
    /// None: a database cannot be had.
    pub fn connect(&self) -> Result<Connection> {
        match self.0 {}
    }
}

/// A connection; there is none.
#[derive(Clone, Debug)]
pub struct Connection(Infallible);

#[allow(clippy::unused_async, clippy::missing_errors_doc, reason = "the real crate's signatures")]
impl Connection {
    /// How long a statement waits.
    pub fn busy_timeout(&self, _limit: Duration) -> Result<()> {
        match self.0 {}
    }

    /// Runs a pragma.
    pub async fn pragma_query<F>(&self, _pragma: &str, _each: F) -> Result<()>
    where
        F: FnMut(&Row) -> Result<()>,
    {
        match self.0 {}
    }

    /// Runs a statement.
    pub async fn execute<P>(&self, _statement: impl AsRef<str>, _parameters: P) -> Result<u64> {
        match self.0 {}
    }

    /// Asks for rows.
    pub async fn query<P>(&self, _statement: impl AsRef<str>, _parameters: P) -> Result<Rows> {
        match self.0 {}
    }

    /// Starts a transaction.
    pub async fn transaction_with_behavior(
        &mut self,
        _behavior: transaction::TransactionBehavior,
    ) -> Result<Transaction<'_>> {
        match self.0 {}
    }
}

/// A transaction; there is none.
#[derive(Debug)]
pub struct Transaction<'a>(&'a Connection);

#[allow(clippy::unused_async, clippy::missing_errors_doc, reason = "the real crate's signatures")]
impl Transaction<'_> {
    /// Makes its writes lasting.
    pub async fn commit(self) -> Result<()> {
        match self.0.0 {}
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

/// Rows; there are none.
#[derive(Debug)]
pub struct Rows(Infallible);

#[allow(clippy::unused_async, clippy::missing_errors_doc, reason = "the real crate's signatures")]
impl Rows {
    /// The next row.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        match self.0 {}
    }
}

/// A row; there is none.
#[derive(Debug)]
pub struct Row(Infallible);

#[allow(clippy::missing_errors_doc, reason = "the real crate's signatures")]
impl Row {
    /// The value in a column.
    pub fn get<T>(&self, _column: usize) -> Result<T> {
        match self.0 {}
    }
}

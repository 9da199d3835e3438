//! What the VMs of one proxy share: values by name, one copy per process.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use latchkey_protocol::KeyHash;

/// Values that every VM of a proxy sees: the seam to the host.
///
/// Values are copied both ways. There is no way to remove a name, so the names are a fixed set.
pub trait SharedData: fmt::Debug {
    /// Returns a value and the number of its last write, if there is one; an empty value is as good as
    /// none.
    fn get(&self, name: &str) -> Option<(Vec<u8>, Write)>;

    /// Writes a value; with `over`, only if that is still the last write. Returns whether it did.
    fn set(&self, name: &str, value: &[u8], over: Option<Write>) -> bool;
}

/// Number of a write, from 1; each is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write(pub u32);

impl Write {
    /// Stands for a name that was never written to.
    ///
    /// For a name that is absent the host takes any number; for one that is present, only that of its
    /// last write. So of several VMs that found it absent, one succeeds.
    pub const NONE: Self = Self(u32::MAX);
}

/// Values within this process: what tests and `latchkey explain` have in a proxy's place.
#[derive(Debug, Default)]
pub struct LocalData(RefCell<Values>);

#[derive(Debug, Default)]
struct Values {
    by_name: BTreeMap<String, (Vec<u8>, Write)>,
    writes: u32,
}

impl SharedData for LocalData {
    fn get(&self, name: &str) -> Option<(Vec<u8>, Write)> {
        self.0.borrow().by_name.get(name).cloned()
    }

    fn set(&self, name: &str, value: &[u8], over: Option<Write>) -> bool {
        let mut values = self.0.borrow_mut();
        let last = values.by_name.get(name).map(|(_, write)| *write);
        if over.is_some() && last.is_some() && last != over {
            return false;
        }
        values.writes += 1;
        let write = Write(values.writes);
        values.by_name.insert(name.to_owned(), (value.to_vec(), write));
        true
    }
}

/// The names of what the VMs of one control plane and profile share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What all of them start with.
    prefix: String,
}

impl Names {
    /// Returns the names for those who have the same profile and control plane: a text that says all of
    /// it.
    #[must_use]
    pub fn new(source: &str) -> Self {
        let hash = KeyHash::of(source.as_bytes());
        let digits: String =
            hash.as_bytes().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { prefix: format!("latchkey/{FORM}/{digits}") }
    }

    /// Returns a short name of what is shared.
    #[must_use]
    pub fn group(&self) -> &str {
        self.prefix.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the name of what says which pages there are.
    #[must_use]
    pub fn index(&self) -> String {
        format!("{}/index", self.prefix)
    }

    /// Returns the name of the list of VMs.
    #[must_use]
    pub fn roster(&self) -> String {
        format!("{}/roster", self.prefix)
    }

    /// Returns the name of a page of tokens.
    #[must_use]
    pub fn tokens(&self, bank: Bank, page: usize) -> String {
        format!("{}/t{}/{page:03x}", self.prefix, bank.digit())
    }

    /// Returns the name of a page of accounts.
    #[must_use]
    pub fn accounts(&self, bank: Bank, page: usize) -> String {
        format!("{}/a{}/{page:03x}", self.prefix, bank.digit())
    }
}

/// One of two sets of pages: while one is in use, a snapshot goes into the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Bank {
    /// Returns the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// Number of the form of all that is shared. VMs with other code may be there at the same time, while
/// an operator replaces the module: they have names of their own where the form differs.
const FORM: u32 = 1;

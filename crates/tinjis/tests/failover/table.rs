//! The setups in which leaders are lost, and the number of failovers for each. Runs nothing.

use testkit::postgres::cluster::Mode;

/// How services connect to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// By a URL of all nodes.
    AllNodes,
    Haproxy,
}

impl Route {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AllNodes => "all nodes",
            Self::Haproxy => "HAProxy",
        }
    }
}

/// The place of payments' ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    /// In a database of the cluster: it loses the same commits as billing.
    InCluster,
    /// On a server of its own, which loses nothing.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Mode,
    pub(crate) route: Route,
    pub(crate) ledger: Ledger,
}

impl Setup {
    /// Whether the ledger may lack charges after a failover, so that an operator must act.
    pub(crate) fn loses_ledger_rows(&self) -> bool {
        self.mode == Mode::Asynchronous && self.ledger == Ledger::InCluster
    }
}

/// The order lets three failovers use both modes, both routes and both places of the ledger.
pub(crate) const SETUPS: [Setup; 5] = [
    Setup { mode: Mode::Asynchronous, route: Route::AllNodes, ledger: Ledger::Elsewhere },
    Setup { mode: Mode::Asynchronous, route: Route::Haproxy, ledger: Ledger::InCluster },
    Setup { mode: Mode::Synchronous, route: Route::AllNodes, ledger: Ledger::InCluster },
    Setup { mode: Mode::Asynchronous, route: Route::AllNodes, ledger: Ledger::InCluster },
    Setup { mode: Mode::Synchronous, route: Route::Haproxy, ledger: Ledger::InCluster },
];

/// Splits the failovers into equal parts; the first parts get the remainder.
pub(crate) fn shares(all: usize, parts: usize) -> Vec<usize> {
    (0..parts).map(|part| all / parts + usize::from(part < all % parts)).collect()
}

#[test]
fn shares_are_equal_and_the_first_get_what_is_left() {
    assert_eq!(shares(3, 5), [1, 1, 1, 0, 0]);
    assert_eq!(shares(52, 5), [11, 11, 10, 10, 10]);
}

//! Under which setups leaders are lost, and how many of the failovers each gets. Runs nothing.

use testkit::postgres::cluster::Mode;

/// How services reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A URL of all nodes.
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

/// Where payments keep their ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    /// In a database of the cluster, so that it loses what billing loses.
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

/// In this order, so that three failovers meet both modes, both routes and both places of the ledger.
pub(crate) const SETUPS: [Setup; 5] = [
    Setup { mode: Mode::Asynchronous, route: Route::AllNodes, ledger: Ledger::Elsewhere },
    Setup { mode: Mode::Asynchronous, route: Route::Haproxy, ledger: Ledger::InCluster },
    Setup { mode: Mode::Synchronous, route: Route::AllNodes, ledger: Ledger::InCluster },
    Setup { mode: Mode::Asynchronous, route: Route::AllNodes, ledger: Ledger::InCluster },
    Setup { mode: Mode::Synchronous, route: Route::Haproxy, ledger: Ledger::InCluster },
];

/// As equal as can be; the first get what is left.
pub(crate) fn shares(all: usize, parts: usize) -> Vec<usize> {
    (0..parts).map(|part| all / parts + usize::from(part < all % parts)).collect()
}

#[test]
fn shares_are_equal_and_the_first_get_what_is_left() {
    assert_eq!(shares(3, 5), [1, 1, 1, 0, 0]);
    assert_eq!(shares(52, 5), [11, 11, 10, 10, 10]);
}

//! Subscriptions on real billing and real payments, by the command line: each due period is invoiced and charged once,
//! over missed dates, price changes, pauses, ends, caps, restarts, replicas and a restore from before the run. On
//! SQLite and on PostgreSQL. Knows the command line and the tables only.

/// Runs each case on both kinds of store.
#[cfg(test)]
macro_rules! on_both {
    ($($case:ident,)*) => {
        mod sqlite {
            $(#[test]
            fn $case() {
                super::$case(None);
            })*
        }
        mod postgres {
            $(#[test]
            fn $case() {
                let Some(database) = testkit::Database::fresh(stringify!($case)) else { return };
                super::$case(Some(&database));
            })*
        }
    };
}

#[cfg(test)]
mod clock;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod currencies;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod previewed;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod site;
#[cfg(test)]
mod virtual_clock;

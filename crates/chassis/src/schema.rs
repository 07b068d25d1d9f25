//! The steps of a schema, and whether a program can use a database that has other steps than the program knows. Knows
//! no database and no step's meaning.

/// One step of a schema. Its version is its place in the list, from 1; steps are only ever appended.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Recorded with the version, and compared: a reordered list is refused.
    pub name: &'static str,
    /// Statements, run in one transaction.
    pub sql: &'static str,
    /// Whether programs that do not know this step must not use the database any more.
    pub breaks_older: bool,
}

/// A step that the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) breaks_older: bool,
}

/// Checks the steps that a database has, and returns their number. Fewer than the list: the rest must be migrated.
/// More: they are a later program's and do no harm.
///
/// # Errors
/// When the database is another service's, or a later program made it unusable for this program.
pub(crate) fn check(applied: &[Applied], migrations: &[Migration]) -> Result<usize, String> {
    for step in applied {
        let known = (1..).zip(migrations).find(|(version, _)| *version == step.version);
        match known {
            Some((_, known)) if known.name == step.name => {}
            Some((_, known)) => {
                return Err(format!(
                    "the database's schema step {} is {:?}, this program's is {:?}: not the same service?",
                    step.version, step.name, known.name
                ));
            }
            None if step.breaks_older => {
                return Err(format!(
                    "the database was made incompatible by a newer program (schema step {}, {:?}): use that one",
                    step.version, step.name
                ));
            }
            None => {}
        }
    }
    Ok(applied.len())
}

/// Names of the tables and sequences that these steps create.
pub(crate) fn relations(migrations: &[Migration]) -> impl Iterator<Item = &str> {
    let created = |sql: &'static str| {
        let after =
            ["CREATE TABLE ", "CREATE SEQUENCE "].into_iter().flat_map(|words| sql.split(words).skip(1));
        after.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
    };
    migrations.iter().flat_map(move |step| created(step.sql))
}

/// A database whose rows were dated by a simulation must never charge for real, and no simulation may date rows of a real
/// one.
///
/// # Errors
/// When clock and database are of different kinds.
pub fn check_clock(is_database_virtual: bool, is_clock_virtual: bool) -> Result<(), String> {
    match (is_database_virtual, is_clock_virtual) {
        (true, false) => {
            Err("the database was created by a simulation with a virtual clock, and serves no other: use \
             another database, or give the simulation's clock with --virtual-clock"
                .to_owned())
        }
        (false, true) => Err("the database was created without a virtual clock, and never gets one: leave \
             --virtual-clock (VIRTUAL_CLOCK) out, or use a new database"
            .to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Migration; 2] = [
        Migration { name: "one", sql: "", breaks_older: true },
        Migration { name: "two", sql: "", breaks_older: false },
    ];

    fn applied(names: &[(&str, bool)]) -> Vec<Applied> {
        let step = |(version, (name, breaks_older)): (u32, &(&str, bool))| Applied {
            version,
            name: (*name).to_owned(),
            breaks_older: *breaks_older,
        };
        (1..).zip(names).map(step).collect()
    }

    #[test]
    fn fewer_and_more_steps_are_counted() {
        assert_eq!(check(&[], &STEPS), Ok(0));
        assert_eq!(check(&applied(&[("one", true)]), &STEPS), Ok(1));
        assert_eq!(check(&applied(&[("one", true), ("two", false), ("later", false)]), &STEPS), Ok(3));
    }

    #[test]
    fn another_list_or_a_later_break_is_refused() {
        assert!(check(&applied(&[("other", true)]), &STEPS).unwrap_err().contains("not the same service"));
        let later = applied(&[("one", true), ("two", false), ("later", true)]);
        assert!(check(&later, &STEPS).unwrap_err().contains("newer program"));
    }
}

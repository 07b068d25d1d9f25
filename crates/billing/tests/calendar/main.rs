//! Tests of the calendar of subscriptions: against a second implementation, against providers' published examples, and
//! on days on which clocks change.

#[cfg(test)]
mod days;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tzif;

//! Proof: no secret leaks. Every secret input contains a marker; logs at trace level, metrics, responses, `--help`,
//! configuration mistakes and the folder of an aborted process are searched for it. Knows settings only.
#![cfg(test)]

mod cores;
mod mistakes;
mod planted_secrets;

/// Texts that must not appear anywhere, each with its description.
#[derive(Clone, Debug, Default)]
pub(crate) struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    pub(crate) fn plant(&mut self, what: &'static str) -> String {
        // Letters only, which survive every form of quoting.
        let text = format!("canary{:02}ofthistest", self.0.len());
        self.0.push((what, text.clone()));
        text
    }

    pub(crate) fn add(&mut self, what: &'static str, text: &str) {
        self.0.push((what, text.to_owned()));
    }

    /// The canaries that appear in these bytes.
    pub(crate) fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let is_there = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let found = self.0.iter().filter(|(_, text)| is_there(text));
        found.map(|(what, text)| format!("{place} holds {what}: {text}")).collect()
    }
}

#[test]
fn a_canary_that_is_there_is_found() {
    let mut canaries = Canaries::default();
    let token = canaries.plant("a token");
    canaries.add("a key", "MIIB");
    assert_eq!(canaries.found_in("x", format!("a {token} b").as_bytes()).len(), 1);
    assert_eq!(canaries.found_in("x", b"\x00MIIB\xff").len(), 1);
    assert_eq!(canaries.found_in("x", b"nothing").len(), 0);
}

//! Actions of a datapath, in Open vSwitch's words.

use std::fmt::{self, Formatter};

/// What a datapath does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes out on the port of this number.
    Output(u32),
    /// These are done with a copy.
    Clone(Vec<Self>),
    /// The first ones are done with a packet that is longer than so many bytes, the others with one that
    /// is not.
    ByLen(u16, [Vec<Self>; 2]),
    /// What is said here.
    Said(String),
}

impl Action {
    /// What is said by this.
    #[must_use]
    pub fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

/// Names of ports, by their numbers.
pub type Names<'a> = &'a dyn Fn(u32) -> Option<String>;

/// Actions as they are shown: with commas between them, `drop` where there is none.
#[derive(Clone, Copy)]
pub struct Actions<'a> {
    /// What is shown.
    pub actions: &'a [Action],
    /// With these, ports are called by their names.
    pub names: Option<Names<'a>>,
}

impl fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.actions).finish()
    }
}

impl fmt::Display for Actions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            return f.write_str("drop");
        }
        let mut comma = "";
        for action in self.actions {
            f.write_str(comma)?;
            comma = ",";
            match action {
                Action::Output(port) => match self.names.and_then(|names| names(*port)) {
                    Some(name) => f.write_str(&name)?,
                    None => write!(f, "{port}")?,
                },
                Action::Clone(actions) => {
                    let nested = Self { actions, names: self.names };
                    write!(f, "clone({nested})")?;
                }
                Action::ByLen(len, [longer, others]) => {
                    let nested = |actions| Self { actions, names: self.names };
                    let (longer, others) = (nested(longer), nested(others));
                    write!(f, "check_pkt_len(size={len},gt({longer}),le({others}))")?;
                }
                Action::Said(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

/// A clone at the end is as good as what is in it.
pub fn open_last_clone(actions: &mut Vec<Action>) {
    if let Some(Action::Clone(inner)) = actions.pop_if(|last| matches!(last, Action::Clone(_))) {
        actions.extend(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_shown_as_open_vswitch_shows_them() {
        let said = Action::said("push_vlan(vid=5,pcp=0)");
        let mut actions =
            vec![Action::Output(1), Action::Clone(vec![said.clone(), Action::Output(20)])];
        let shown = Actions { actions: &actions, names: None }.to_string();
        assert_eq!(shown, "1,clone(push_vlan(vid=5,pcp=0),20)");
        let names = |port| (port == 20).then(|| "p20".to_owned());
        let shown = Actions { actions: &actions, names: Some(&names) }.to_string();
        assert_eq!(shown, "1,clone(push_vlan(vid=5,pcp=0),p20)");
        open_last_clone(&mut actions);
        assert_eq!(actions, [Action::Output(1), said, Action::Output(20)]);
        open_last_clone(&mut actions);
        assert_eq!(actions.len(), 3);
        assert_eq!(Actions { actions: &[], names: None }.to_string(), "drop");
        let by_len = [Action::ByLen(200, [vec![Action::Output(2)], vec![]])];
        let shown = Actions { actions: &by_len, names: None }.to_string();
        assert_eq!(shown, "check_pkt_len(size=200,gt(2),le(drop))");
    }
}

//! Which port sends to which.

use std::str::FromStr;

use super::args::PortArg;
use super::forward::Plan;

/// Pairs of ports as written by a person: `(0,3),(uplink,vm1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap(Vec<(String, String)>);

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("'{text}': expected pairs of ports in parentheses, as in \"(0,1),(2,3)\"");
        let mut pairs = Vec::new();
        let mut rest = text.trim();
        loop {
            let (pair, behind) =
                rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(error)?;
            let (a, b) = pair.split_once(',').ok_or_else(error)?;
            let (a, b) = (a.trim(), b.trim());
            if a.is_empty() || b.is_empty() || b.contains(',') {
                return Err(error());
            }
            pairs.push((a.to_owned(), b.to_owned()));
            rest = behind.trim_start();
            if rest.is_empty() {
                return Ok(Self(pairs));
            }
            rest = rest.strip_prefix(',').ok_or_else(error)?.trim_start();
        }
    }
}

/// For each port where its frames go: as `map` says, or in the order of the ports. The last one of
/// an odd number gets its own frames back.
///
/// # Errors
/// Names that are given twice; a map that has a port twice, or not at all, or one that there is not.
pub fn plan(ports: &[PortArg], map: Option<&PortMap>) -> Result<Vec<Plan>, String> {
    let names = names(ports)?;
    let to = match map {
        Some(map) => by_map(&names, map)?,
        None => in_order(names.len()),
    };
    let plan = |((port, name), to): ((&PortArg, String), usize)| Plan {
        name,
        device: port.device.clone(),
        to,
    };
    Ok(ports.iter().zip(names).zip(to).map(plan).collect())
}

/// The names of the ports: those that have none are called by their number.
fn names(ports: &[PortArg]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let name = port.name.clone().unwrap_or_else(|| number.to_string());
        if names.contains(&name) {
            return Err(format!(
                "port name '{name}' is given twice; each port needs a name of its own (those \
                 without one are called by their number)"
            ));
        }
        names.push(name);
    }
    Ok(names)
}

fn in_order(count: usize) -> Vec<usize> {
    // Neighbours differ in the lowest bit.
    (0..count).map(|port| if port ^ 1 < count { port ^ 1 } else { port }).collect()
}

fn by_map(names: &[String], PortMap(pairs): &PortMap) -> Result<Vec<usize>, String> {
    let mut to = vec![None; names.len()];
    let mut join = |from: usize, other: usize| match to.get_mut(from) {
        Some(place @ None) => {
            *place = Some(other);
            Ok(())
        }
        _ => Err(format!("--portmap: port {} is in two pairs", named(names, from))),
    };
    for (a, b) in pairs {
        let (a, b) = (find(names, a)?, find(names, b)?);
        join(a, b)?;
        if a != b {
            join(b, a)?;
        }
    }
    let missing = || to.iter().position(Option::is_none).map(|port| named(names, port));
    if let Some(port) = missing() {
        return Err(format!("--portmap: port {port} is in no pair; leave it out, or pair it"));
    }
    Ok(to.into_iter().flatten().collect())
}

/// The number of the port that is called so, or has that number.
fn find(names: &[String], text: &str) -> Result<usize, String> {
    let number = || text.parse().ok().filter(|number| *number < names.len());
    names.iter().position(|name| name == text).or_else(number).ok_or_else(|| {
        let all: Vec<String> = (0..names.len()).map(|number| named(names, number)).collect();
        format!("--portmap: there is no port '{text}'; the ports are {}", all.join(", "))
    })
}

/// A port for messages: its number, and its name where it has one of its own.
fn named(names: &[String], number: usize) -> String {
    match names.get(number).filter(|name| **name != number.to_string()) {
        Some(name) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(names: &[&str]) -> Vec<PortArg> {
        let port = |name: &&str| PortArg {
            name: Some((*name).to_owned()).filter(|name| !name.is_empty()),
            device: "null:".to_owned(),
        };
        names.iter().map(port).collect()
    }

    fn to(names: &[&str], map: Option<&str>) -> Result<Vec<usize>, String> {
        let map = map.map(str::parse::<PortMap>).transpose()?;
        plan(&ports(names), map.as_ref()).map(|plans| plans.iter().map(|plan| plan.to).collect())
    }

    #[test]
    fn neighbours_are_paired_and_an_odd_one_is_alone() {
        for (count, expected) in
            [(1, vec![0]), (2, vec![1, 0]), (3, vec![1, 0, 2]), (4, vec![1, 0, 3, 2])]
        {
            assert_eq!(in_order(count), expected);
            assert_eq!(to(&vec![""; count], None).unwrap(), expected);
        }
    }

    #[test]
    fn a_map_takes_numbers_and_names() {
        assert_eq!(to(&["a", "", "c", "d"], Some("(a,3),(1,c)")).unwrap(), [3, 2, 1, 0]);
        assert_eq!(to(&["a", "b"], Some(" ( b , a ) ")).unwrap(), [1, 0]);
        assert_eq!(to(&["a", "b"], Some("(0,0),(1,1)")).unwrap(), [0, 1], "to itself");
        // A name wins over a number.
        assert_eq!(to(&["1", "x", "y"], Some("(1,2),(x,x)")).unwrap(), [2, 1, 0]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refusal = |names: &[&str], map: &str| to(names, Some(map)).unwrap_err();
        for bad in ["", "0,1", "(0,1", "(0)", "(0,1,2)", "(0,1)(2,3)", "(0,1),", "(,1)", "(0,1);"] {
            assert!(refusal(&["", ""], bad).contains("expected pairs"), "{bad}");
        }
        assert!(refusal(&["a", ""], "(0,7)").contains("no port '7'; the ports are 0 (a), 1"));
        assert!(refusal(&["a", "", ""], "(0,1),(1,2)").contains("port 1 is in two pairs"));
        assert!(refusal(&["a", "b", "c"], "(0,1)").contains("port 2 (c) is in no pair"));
        assert!(to(&["a", "a"], None).unwrap_err().contains("'a' is given twice"));
        assert!(to(&["1", ""], None).unwrap_err().contains("'1' is given twice"));
    }
}

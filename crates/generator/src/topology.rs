//! Which of several ports send to which.

use crate::stamp::MAX_FLOWS;

/// How ports are connected by what is tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Topology {
    /// The first and the second, the third and the fourth, and so on, both ways.
    #[default]
    Pairs,
    /// Each to each other.
    Mesh,
}

/// Traffic from one port to another, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who sends.
    pub from: usize,
    /// Who is to receive.
    pub to: usize,
}

/// All links between `ports` ports.
///
/// # Errors
/// When one has nobody to send to.
pub fn links(topology: Topology, ports: usize) -> Result<Vec<Link>, String> {
    match topology {
        Topology::Pairs if !ports.is_multiple_of(2) => Err(format!(
            "{ports} ports make no pairs: another --port, or --topology mesh, where each sends to \
             each other"
        )),
        Topology::Pairs => Ok((0..ports).map(|from| Link { from, to: from ^ 1 }).collect()),
        Topology::Mesh => Ok((0..ports)
            .flat_map(|from| (0..ports).map(move |to| Link { from, to }))
            .filter(|link| link.from != link.to)
            .collect()),
    }
}

/// Where the frames of each link belong: its flows have numbers of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Flows of a link, at least 1.
    flows: u32,
    to: Vec<usize>,
}

impl Routes {
    /// Routes of `links` with `flows` flows each.
    ///
    /// # Errors
    /// When there are more flows than can be told apart.
    pub fn new(links: &[Link], flows: u32) -> Result<Self, String> {
        let all = u64::from(flows) * links.len() as u64;
        if all > MAX_FLOWS.into() {
            return Err(format!(
                "{flows} flows from port to port are {all} in all, expected {MAX_FLOWS} at most: \
                 --flows chooses fewer"
            ));
        }
        Ok(Self { flows: flows.max(1), to: links.iter().map(|link| link.to).collect() })
    }

    /// Whether a frame of the flow `flow` belongs to the port `port`.
    #[inline]
    pub fn leads_to(&self, flow: u32, port: usize) -> bool {
        let link = flow.checked_div(self.flows).unwrap_or(0);
        self.to.get(link as usize) == Some(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sends_and_receives() {
        let pairs = links(Topology::Pairs, 4).unwrap();
        let ends: Vec<(usize, usize)> = pairs.iter().map(|link| (link.from, link.to)).collect();
        assert_eq!(ends, [(0, 1), (1, 0), (2, 3), (3, 2)]);
        assert!(links(Topology::Pairs, 3).unwrap_err().contains("--topology mesh"));
        let mesh = links(Topology::Mesh, 3).unwrap();
        let ends: Vec<(usize, usize)> = mesh.iter().map(|link| (link.from, link.to)).collect();
        assert_eq!(ends, [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]);
    }

    #[test]
    fn flows_lead_where_their_link_does() {
        let routes = Routes::new(&links(Topology::Mesh, 3).unwrap(), 10).unwrap();
        assert!(routes.leads_to(9, 1) && !routes.leads_to(9, 2));
        assert!(routes.leads_to(10, 2) && routes.leads_to(59, 1) && !routes.leads_to(60, 1));
        let mesh = links(Topology::Mesh, 40).unwrap();
        assert!(Routes::new(&mesh, 1000).unwrap_err().contains("1560000 in all"));
    }
}

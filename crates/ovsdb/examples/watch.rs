//! Tells what changes in columns of tables of a database:
//! `watch unix:/run/openvswitch/db.sock Open_vSwitch Bridge=name,ports Interface=name,ofport`.

use std::error::Error;
use std::time::Instant;

use ovsdb::{Client, Event, Wanted};
use rustix::event::{PollFd, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(remote), Some(database)) = (arguments.next(), arguments.next()) else {
        return Err("expected REMOTE DATABASE TABLE=COLUMN,..".into());
    };
    let mut wanted = Wanted::new(database);
    for argument in arguments {
        let (table, columns) = argument.split_once('=').ok_or("expected TABLE=COLUMN,..")?;
        wanted = wanted.table(table, columns.split(','));
    }
    let mut client = Client::new(remote.parse()?, wanted, Instant::now());
    loop {
        for event in client.run(Instant::now()) {
            match event {
                Event::Changed(changes) => {
                    for (table, uuid) in changes
                        .iter()
                        .flat_map(|(table, rows)| rows.keys().map(move |uuid| (table, *uuid)))
                    {
                        println!("{table} {uuid} {:?}", client.cache().row(table, uuid));
                    }
                }
                other => println!("{other:?}"),
            }
        }
        let left = client.due().map(|due| due.saturating_duration_since(Instant::now()));
        let left: Option<Timespec> = left.map(TryInto::try_into).transpose()?;
        let fd = client.fd();
        let mut fds: Vec<_> =
            fd.iter().map(|fd| PollFd::from_borrowed_fd(*fd, client.interest())).collect();
        poll(&mut fds, left.as_ref())?;
    }
}

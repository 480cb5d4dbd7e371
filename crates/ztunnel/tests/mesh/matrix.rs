//! Who ends a connection, and what the apps at its two ends see of it: `docs/stream-ends.md`, row by row.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use rustix::process::{Pid, Signal, kill_process};
use testkit::apps::connect;
use testkit::harness::{Test, test};
use testkit::mesh::Pod;
use testkit::ztunnel::Ztunnel;

use super::ends::{accepted, all_of, reset};
use super::{Outcome, TwoNodes, at, spec};

const PAGE: &str = include_str!("../../../../docs/stream-ends.md");

/// One row of the table.
struct Row {
    what: &'static str,
    client: Sees,
    server: Sees,
    over: &'static [Path],
    happens: fn(Ends) -> Outcome<Ends>,
}

/// What an app finds when it reads to the end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sees {
    /// Every byte that was sent to it, and then the end.
    All,
    /// `ECONNRESET`.
    Reset,
    /// Nothing, because it is gone itself, or was never reached.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// From pod to pod, through both ztunnels.
    Tunnel,
    /// From a pod to a server outside the mesh, through the client's ztunnel.
    Out,
    /// From a client outside the mesh to a pod, through the server's ztunnel.
    In,
}

/// All of them.
const EVERYWHERE: &[Path] = &[Path::Tunnel, Path::Out, Path::In];

const ROWS: &[Row] = &[
    Row {
        what: "the client ends its direction and reads on",
        client: Sees::All,
        server: Sees::All,
        over: EVERYWHERE,
        happens: |ends| ends.one_ends_first(Side::Client),
    },
    Row {
        what: "the server ends its direction and reads on",
        client: Sees::All,
        server: Sees::All,
        over: EVERYWHERE,
        happens: |ends| ends.one_ends_first(Side::Server),
    },
    Row {
        what: "the client resets",
        client: Sees::Gone,
        server: Sees::Reset,
        over: EVERYWHERE,
        happens: |ends| ends.resets(Side::Client),
    },
    Row {
        what: "the server resets",
        client: Sees::Reset,
        server: Sees::Gone,
        over: EVERYWHERE,
        happens: |ends| ends.resets(Side::Server),
    },
    Row {
        what: "the client resets after the server has ended its direction",
        client: Sees::Gone,
        server: Sees::Reset,
        over: EVERYWHERE,
        happens: |ends| ends.ends(Side::Server)?.resets(Side::Client),
    },
    Row {
        what: "the server resets after the client has ended its direction",
        client: Sees::Reset,
        server: Sees::Gone,
        over: EVERYWHERE,
        happens: |ends| ends.ends(Side::Client)?.resets(Side::Server),
    },
    Row {
        what: "the client's ztunnel is killed",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel, Path::Out],
        happens: |ends| ends.kill(Side::Client),
    },
    Row {
        what: "the server's ztunnel is killed",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel, Path::In],
        happens: |ends| ends.kill(Side::Server),
    },
    Row {
        what: "the client's ztunnel is told to stop, and its drain is over before the connection",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel, Path::Out],
        happens: |ends| ends.stop(Side::Client),
    },
    Row {
        what: "the server's ztunnel is told to stop, and its drain is over before the connection",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel, Path::In],
        happens: |ends| ends.stop(Side::Server),
    },
    Row {
        what: "the link between the nodes is cut while nothing is said",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel],
        happens: |ends| ends.cut_link(),
    },
    Row {
        what: "the link between the nodes is cut while both talk",
        client: Sees::Reset,
        server: Sees::Reset,
        over: &[Path::Tunnel],
        happens: |ends| {
            let mut ends = ends.cut_link()?;
            ends.app(Side::Client)?.write_all(b"are you there?")?;
            ends.app(Side::Server)?.write_all(b"are you there?")?;
            Ok(ends)
        },
    },
    Row {
        what: "nobody listens at the server's port",
        client: Sees::Reset,
        server: Sees::Gone,
        over: EVERYWHERE,
        happens: |ends| ends.refuse(),
    },
];

pub fn tests() -> Vec<Test> {
    let rows = ROWS.iter().map(|row| test(&format!("ends: {}", row.what), || row.check()));
    let page = test("the page about ends of streams has the table that is tested", || {
        let table: String = ROWS.iter().map(Row::line).collect();
        assert!(PAGE.contains(&table), "docs/stream-ends.md should contain:\n{table}");
        Ok(())
    });
    rows.chain([page]).collect()
}

impl Row {
    fn check(&self) -> Outcome {
        for &path in self.over {
            let mut ends = (self.happens)(Ends::meet(path)?)?;
            for (side, expected) in [(Side::Client, self.client), (Side::Server, self.server)] {
                assert_eq!(ends.sees(side)?, expected, "{side:?}, {path:?}");
            }
        }
        Ok(())
    }

    fn line(&self) -> String {
        let over: Vec<&str> = self.over.iter().map(Path::name).collect();
        format!("| {} | {} | {} | {} |\n", self.what, self.client.name(), self.server.name(), over.join(", "))
    }
}

impl Sees {
    fn name(&self) -> &'static str {
        match self {
            Self::All => "everything, then the end",
            Self::Reset => "a reset",
            Self::Gone => "–",
        }
    }
}

impl Path {
    fn name(&self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Out => "plain out",
            Self::In => "plain in",
        }
    }

    fn pods(self, mesh: &TwoNodes) -> (&Pod, &Pod) {
        match self {
            Self::Tunnel => (&mesh.client, &mesh.server),
            Self::Out => (&mesh.client, &mesh.outside_b),
            Self::In => (&mesh.outside_a, &mesh.server),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A connection in a mesh of its own, over which a byte has passed each way.
struct Ends {
    client: Option<TcpStream>,
    server: Option<TcpStream>,
    /// The client's connection was reset before it could be read from.
    reset_at_once: bool,
    path: Path,
    mesh: TwoNodes,
}

/// What the last to speak says: more than sockets and windows on the way hold, so that the end has to wait for it.
const SPEECH: usize = 8 << 20;

impl Ends {
    fn meet(path: Path) -> Outcome<Self> {
        // A tunnel that hears nothing for 3 s is dead, and a drain takes 200 ms.
        let spec = spec()
            .env("KEEPALIVE_TIME", "1s")
            .env("KEEPALIVE_INTERVAL", "1s")
            .env("KEEPALIVE_RETRIES", "2")
            .env("CONNECTION_TERMINATION_DEADLINE", "200ms");
        let mesh = TwoNodes::start_with(&spec)?;
        let (from, to) = path.pods(&mesh);
        let listener = to.run(|| TcpListener::bind("0.0.0.0:9000"))??;
        let (mut client, mut server) = accepted(connect(from, at(to, 9000))?, &listener)?;
        client.write_all(b"x")?;
        server.read_exact(&mut [0])?;
        server.write_all(b"y")?;
        client.read_exact(&mut [0])?;
        Ok(Self { client: Some(client), server: Some(server), reset_at_once: false, path, mesh })
    }

    fn slot(&mut self, side: Side) -> &mut Option<TcpStream> {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn app(&mut self, side: Side) -> Outcome<&mut TcpStream> {
        Ok(self.slot(side).as_mut().ok_or("the app is gone")?)
    }

    /// Reads to the end. What is said after an end is checked by who says it.
    fn sees(&mut self, side: Side) -> Outcome<Sees> {
        let Some(app) = self.slot(side) else {
            return Ok(if self.reset_at_once && matches!(side, Side::Client) { Sees::Reset } else { Sees::Gone });
        };
        match all_of(app) {
            Ok(_) => Ok(Sees::All),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Sees::Reset),
            Err(error) => Err(error.into()),
        }
    }

    fn ends(mut self, side: Side) -> Outcome<Self> {
        self.app(side)?.shutdown(Shutdown::Write)?;
        assert_eq!(all_of(self.app(side.other())?)?, b"", "{:?}", self.path);
        Ok(self)
    }

    /// One says something and ends, the other answers at length once it has heard all of it.
    fn one_ends_first(mut self, first: Side) -> Outcome<Self> {
        let said: Vec<u8> = (0..SPEECH).map(|i| (i % 251) as u8).collect();
        for side in [first, first.other()] {
            let mut speaker = self.app(side)?.try_clone()?;
            let listener = self.app(side.other())?;
            let heard = std::thread::scope(|scope| {
                let said = &said;
                let spoken =
                    scope.spawn(move || speaker.write_all(said).and_then(|()| speaker.shutdown(Shutdown::Write)));
                let heard = all_of(listener);
                spoken.join().map_err(|_| "the speaker panicked")??;
                Ok::<_, Box<dyn std::error::Error>>(heard?)
            })?;
            assert!(heard == said, "{:?} hears all, over {:?}", side.other(), self.path);
        }
        Ok(self)
    }

    fn resets(mut self, side: Side) -> Outcome<Self> {
        reset(self.slot(side).take().ok_or("the app is gone")?)?;
        Ok(self)
    }

    fn kill(self, side: Side) -> Outcome<Self> {
        let pid = Pid::from_raw(self.ztunnel(side).pid().cast_signed()).ok_or("no process")?;
        kill_process(pid, Signal::KILL)?;
        Ok(self)
    }

    fn stop(self, side: Side) -> Outcome<Self> {
        self.ztunnel(side).terminate()?;
        Ok(self)
    }

    fn ztunnel(&self, side: Side) -> &Ztunnel {
        match side {
            Side::Client => &self.mesh.zt_a,
            Side::Server => &self.mesh.zt_b,
        }
    }

    fn cut_link(self) -> Outcome<Self> {
        self.mesh.a.cut_off()?;
        Ok(self)
    }

    fn refuse(mut self) -> Outcome<Self> {
        let (from, to) = self.path.pods(&self.mesh);
        self.client = match connect(from, at(to, 9999)) {
            Ok(client) => Some(client),
            // The reset may be quicker than the return from `connect`.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => return Err(error.into()),
        };
        self.reset_at_once = self.client.is_none();
        self.server = None;
        Ok(self)
    }
}

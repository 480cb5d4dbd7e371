use super::*;

fn shared(port: u16) -> Listener {
    let options = ListenOptions {
        netns: None,
        mark: None,
        port_reuse: PortReuse::Shared,
        transparency: Transparency::Never,
        liveness: Liveness { keepalive: None, user_timeout: None },
        cut: Cut::End,
    };
    Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &options).unwrap()
}

/// How many of some connections to `to` wait at `listener`.
fn taken(listener: &Listener, to: SocketAddr) -> usize {
    let open: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(to).unwrap()).collect();
    let taken = std::iter::from_fn(|| listener.socket.accept().ok()).count();
    drop(open);
    taken
}

#[test]
fn of_two_listeners_on_a_port_the_later_gets_all_that_is_new_and_either_alone_gets_everything() {
    let first = shared(0);
    let address = first.address();
    assert_eq!(taken(&first, address), 20);
    let second = shared(address.port());
    assert_eq!(taken(&second, address), 20);
    drop(first);
    assert_eq!(taken(&second, address), 20);
    let third = shared(address.port());
    assert_eq!(taken(&third, address), 20, "the second is the older one by now");
    drop(second);
    assert_eq!(taken(&third, address), 20);
    let fourth = shared(address.port());
    drop(fourth);
    assert_eq!(taken(&third, address), 20, "a successor that fails leaves everything to its elder");
}

//! The daemon: sockets, namespaces, files, clocks and tasks around the two machines, `hbone` and `mesh`.

//! Every decision of the swarm, of nodes and of schedulers, as state machines without I/O.

//! The accept loop: connections with deadlines and limits in front of a router.
//! Must not know what the routes mean.

//! Serving this node's services to other nodes.

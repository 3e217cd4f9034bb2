"""Every Python process that a test starts imports this by itself: it has no network either."""

import no_network

no_network.block()

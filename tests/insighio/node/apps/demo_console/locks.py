# The field firmware's lock around all that it sends.

import _thread

network_transmit_mutex = _thread.allocate_lock()

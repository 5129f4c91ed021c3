# umqtt.simple 1.3.4 does TLS by `ussl.wrap_socket(sock, **ssl_params)`; this interpreter has only
# the present `ssl` module, which has the same function.
from ssl import wrap_socket  # noqa: F401

# The field's network module for modems. Both of its parts are called cellular.

from networking import cellular

from .messages import create_message  # noqa: F401 (scenario calls it)

transfer_client = None


def init(cfg):
    cellular.set_pins(
        cfg.get("_UC_IO_RADIO_ON"),
        cfg.get("_UC_IO_PWRKEY"),
        cfg.get("_UC_UART_MODEM_TX"),
        cfg.get("_UC_UART_MODEM_RX"),
    )


def deinit():
    cellular.deactivate()
    cellular.reset_modem_instance()


def prepareForConnectAndUpload():
    modem = cellular.get_modem_instance()
    if modem is not None:
        modem.reset_uart()
        modem.prioritizeWWAN()


def prepareForGPS():
    modem = cellular.get_modem_instance()
    if modem is not None:
        modem.prioritizeGNSS()


def update_hw_ids(measurements, is_senml=True, is_json=False):
    modem = cellular.get_modem_instance()
    if modem is not None:
        measurements["cell_imsi"] = modem.get_sim_card_ids()[0]
        measurements["cell_imei"] = modem.get_modem_imei()


def connect(cfg):
    global transfer_client
    modem = cellular.get_modem_instance()
    if modem is None or not modem.has_sim():
        return {}
    status = cellular.connect(cfg.get_cfg_module())[0]
    results = {"status": {"value": status == cellular.MODEM_CONNECTED}}
    if status == cellular.MODEM_CONNECTED:
        from . import transfer_protocol

        modem.get_model()
        transfer_client = transfer_protocol.TransferProtocolModemAT(cfg, modem)
        transfer_client.protocol_config.client_name = "%s_ca" % cfg.get("device_id")
        results["status"]["value"] = transfer_client.connect()
    return results


def is_connected():
    modem = cellular.get_modem_instance()
    if not (modem and transfer_client and modem.is_connected()):
        return False
    transfer_client.is_connected()  # with one client only, its answer does not count
    return True


def disconnect():
    global transfer_client
    if transfer_client is not None:
        transfer_client.disconnect()
        transfer_client = None


def send_message(cfg, message, explicit_channel_name=None):
    if transfer_client is None:
        return False
    return transfer_client.send_packet(message, explicit_channel_name)


def send_control_message(cfg, message, subtopic):
    if transfer_client is None:
        return False
    return transfer_client.send_control_packet(message, subtopic)


def send_config_message(cfg, message):
    if transfer_client is None:
        return False
    return transfer_client.send_config_packet(message)


def check_and_apply_ota(cfg):
    if transfer_client is not None:
        from . import ota

        ota.checkAndApply(transfer_client)

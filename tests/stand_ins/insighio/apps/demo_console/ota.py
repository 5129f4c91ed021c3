# The field's own updater, and what it does for the other control messages.

import logging

import device_info
import utils

from . import cfg


def checkAndApply(client):
    # False without a client, else None, whatever became of it; or it never returns: a reset.
    if client is None:
        logging.debug("OTA check aborted, no active transfer client")
        return False
    heard = client.get_control_message()
    if heard is None or heard["topic"] is None or heard["message"] is None:
        logging.info("No control message received")
        return None
    topic, message = _text(heard["topic"]), _text(heard["message"])
    device_info.wdt_reset()
    if topic.endswith("/config"):
        if client.modem_based:
            client.clear_retained(topic)
            checkAndApply(client)
        else:
            client.clear_retained(topic + "Request")
            applyDeviceConfiguration(client, message, topic)
    elif topic.endswith("/configRequest") and message == "pending":
        if client.modem_based:
            client.clear_retained(topic.replace("Request", ""))
            applyDeviceConfiguration(client, downloadDeviceConfigurationHTTP(client), topic)
        else:
            client.clear_retained(topic)
            checkAndApply(client)
    elif topic.endswith("/partialConfig"):
        client.clear_retained(topic)
        try:
            from utils import configuration_handler

            pairs = configuration_handler.stringParamsToDict(message)
            for key in pairs:
                configuration_handler.updateConfigValue(key, pairs[key])
            _reset(client)
        except Exception as e:
            logging.exception(e, "unable to apply partial configuration")
    elif topic.endswith("/cmd") and message == "tare":
        logging.info("tare")
        client.clear_retained(topic)
    elif topic.endswith("/cmd") and message == "reboot":
        client.clear_retained(topic)
        _reset(client)
    elif topic.endswith("/ota"):
        _update(client, topic, message)


def _text(value):
    return value if isinstance(value, str) else value.decode()


def _reset(client):
    import machine

    client.disconnect()
    machine.reset()


def _update(client, topic, message):
    from external.kpn_senml.senml_pack_json import SenmlPackJson

    pack = SenmlPackJson("")
    pack.from_json(message)
    said = {str(record.name): record.value for record in pack}
    fuid, kind, size = said.get("i"), said.get("t"), said.get("s")
    if str(said.get("e")) != "0" or not fuid or not kind or not size:
        return
    file = downloadOTA(client, fuid, kind, size)
    if not file:
        # The request stays, and "not enough space" is followed by this.
        sendOtaStatusMessage(client, fuid, False, "can not download")
        return
    from . import apply_ota

    if not apply_ota.do_apply(file):
        sendOtaStatusMessage(client, fuid, False, "can not apply")
        client.clear_retained(topic)
        return
    sendOtaStatusMessage(client, fuid, True)
    client.clear_retained(topic)
    utils.clearCachedStates()
    utils.writeToFlagFile("/ota_applied_flag", "done")
    _reset(client)


def hasEnoughFreeSpace(fileSize):
    return fileSize < device_info.get_free_flash(device_info.get_device_root_folder())


def sendOtaStatusMessage(client, fileId, success, reason_measage=None):
    from external.kpn_senml.senml_pack_json import SenmlPackJson
    from external.kpn_senml.senml_record import SenmlRecord

    pack = SenmlPackJson("")
    pack.add(SenmlRecord("e", 1 if success else 2))
    pack.add(SenmlRecord("i", fileId))
    if reason_measage is not None:
        pack.add(SenmlRecord("m", reason_measage))
    client.send_control_packet(pack.to_json(), "/ota")


def downloadOTA(client, fileId, fileType, fileSize):
    # The file's path, or None.
    if not hasEnoughFreeSpace(int(fileSize)):
        sendOtaStatusMessage(client, fileId, False, "not enough space")
        return None
    config = cfg.get_protocol_config()
    name = fileId + fileType
    path = device_info.get_device_root_folder() + name
    url = "https://%s/mf-rproxy/packages/download?fuid=%s&did=%s&dk=%s&cid=%s" % (
        config.server_ip,
        fileId,
        config.thing_id,
        config.thing_token,
        config.control_channel_id,
    )
    logging.debug("OTA URL: " + url)
    if client.modem_based:
        modem = client.modem_instance
        (downloaded, size) = modem.http_get_file(url, name, 250000)
        if not downloaded or int(size) != int(fileSize):
            logging.error("file download failed, size: %s of %s" % (size, fileSize))
            return None
        if modem.get_file_size(name) != int(fileSize):
            modem.delete_file(name)
            return None
        is_here = modem.get_file(name, path)
        modem.delete_file(name)
        return path if is_here else None
    from utils import httpclient

    http = httpclient.HttpClient()
    response = None
    try:
        try:
            response = http.get(url, saveToFile=path)
        except Exception as e:
            logging.exception(e, "error executing HTTP GET")
        if not response or response.status_code != 200:
            # In clear, with the key.
            response = http.get("http" + url[5:], saveToFile=path)
    except Exception as e:
        logging.exception(e, "unable to instantiate httpclient")
        return None
    finally:
        utils.deleteModule("utils.httpclient")
    return path if response.status_code == 200 else None


def downloadDeviceConfigurationHTTP(client):
    config = cfg.get_protocol_config()
    route = "/mf-rproxy/device/config?id=%s&channel=%s" % (
        config.thing_id,
        config.control_channel_id,
    )
    if not client.modem_based:
        return None  # "not tested", says the field
    modem, name = client.modem_instance, "tmpconfig"
    if not modem.http_get_with_auth_header(
        "console.insigh.io", route, config.thing_token, name, 120000
    ):
        return None
    path = utils.decorateFlagPath("/" + name)
    if not modem.get_file(name, path):
        return None
    modem.delete_file(name)
    return utils.readFromFile(path).strip('"')


def applyDeviceConfiguration(client, configurationParameters, topic):
    if configurationParameters is None:
        return
    from utils import configuration_handler

    pairs = configuration_handler.stringParamsToDict(configurationParameters)
    configuration_handler.apply_configuration(pairs)
    client.clear_retained(topic)
    _reset(client)

class MQTTConfig:
    def __init__(self):
        self.server_ip = self.control_channel_id = self.message_channel_id = ""
        self.thing_id = self.thing_token = self.client_name = ""
        self.server_port = 1883
        self.keepalive = 0
        self.lw_subtopic = self.lw_message = self.lw_qos = self.lw_retain = None

# What an ESP32's firmware has frozen, of what the agent uses.
module("ssl.py", base_path="frozen", opt=3)
module("umqtt/simple.py", base_path="$(STOCK)", opt=3)

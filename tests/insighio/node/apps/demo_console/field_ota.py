# The field firmware's own updater, with what it does for messages that are no packages.


def checkAndApply(client):
    heard = client.get_control_message()
    print("field:", heard["topic"].split("/")[-1], heard["message"], client.modem_based)
    client.clear_retained(heard["topic"])
    print("field:", client.get_control_message())

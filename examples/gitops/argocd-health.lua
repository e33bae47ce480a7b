-- Argo CD's ConfigMap argocd-cm, key resource.customizations.health.discovery.beyondtheclouds.io_VirtualEnvironment
local health = {status = "Progressing", message = "not seen by an agent yet"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" then
    return {status = "Degraded", message = condition.message}
  end
  if condition.type == "Ready" then
    health.message = condition.message
    if condition.status == "True" then
      health.status = "Healthy"
    end
  end
end
return health

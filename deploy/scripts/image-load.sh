# Sourced: sets the array `image_load`, the command that loads image tars onto the nodes of the current cluster.
# IMAGE_LOAD names the command; if it is unset, the name of the current context shows which tool made the cluster.
# Expects the array `kubectl`.
# shellcheck shell=bash disable=SC2154

read -ra image_load <<<"${IMAGE_LOAD:-}"
if ((${#image_load[@]} == 0)); then
  context=$("${kubectl[@]}" config current-context 2>/dev/null) || context=
  case $context in
    k3d-*) image_load=(k3d image import --cluster "${context#k3d-}") ;;
    kind-*) image_load=(kind load image-archive --name "${context#kind-}") ;;
    minikube) image_load=(minikube image load) ;;
    docker-desktop) image_load=(true) ;; # it runs the images of its own Docker daemon
    *) image_load=(kind load image-archive) ;;
  esac
fi
